//! As much XML as stores answer with: elements without attributes of interest, found by name. Pure. What is not as
//! expected is not found, and never panics.

/// The text of the first element of this name.
pub fn text(xml: &str, name: &str) -> Option<String> {
    element(xml, name).map(|(inside, _)| unescape(inside))
}

/// What is inside of each element of this name, which must not contain itself.
pub fn elements<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let (mut rest, mut found) = (xml, Vec::new());
    while let Some((inside, after)) = element(rest, name) {
        found.push(inside);
        rest = after;
    }
    found
}

/// The inside of the first element of this name, and what comes after it.
fn element<'a>(xml: &'a str, name: &str) -> Option<(&'a str, &'a str)> {
    let mut rest = xml;
    loop {
        let at = rest.find('<')?;
        rest = &rest[at + 1..];
        let Some(after) = rest.strip_prefix(name) else { continue };
        // Not a longer name.
        if !after.starts_with(['>', ' ', '/', '\t', '\r', '\n']) {
            continue;
        }
        let end = after.find('>')?;
        if after[..end].ends_with('/') {
            return Some(("", &after[end + 1..]));
        }
        let inside = &after[end + 1..];
        let mut from = 0;
        loop {
            let close = from + inside[from..].find("</")?;
            let tail = &inside[close + 2..];
            if let Some(tail) = tail.strip_prefix(name)
                && let Some(tail) = tail.trim_start().strip_prefix('>')
            {
                return Some((&inside[..close], tail));
            }
            from = close + 2;
        }
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find(';') else { break };
        let name = &rest[1..end];
        let number = name.strip_prefix('#').and_then(|number| match number.strip_prefix('x') {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => number.parse().ok(),
        });
        let character = match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => number.and_then(char::from_u32),
        };
        match character {
            Some(character) => out.push(character),
            None => out.push_str(&rest[..=end]),
        }
        rest = &rest[end + 1..];
    }
    out + rest
}

/// Text that can stand in an element.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_elements() {
        let xml = "<?xml version=\"1.0\"?>\n<List xmlns=\"x\"><Prefix/><KeyCount>2</KeyCount>\
                   <Contents><Key>a&amp;b&#x26;&#38;&lt;</Key><ETag>&quot;1&quot;</ETag></Contents>\
                   <Contents ><Key>c</Key ></Contents></List>";
        assert_eq!(text(xml, "Prefix").as_deref(), Some(""));
        assert_eq!(text(xml, "Key").as_deref(), Some("a&b&&<"));
        assert_eq!(text(xml, "ETag").as_deref(), Some("\"1\""));
        assert_eq!(text(xml, "Absent"), None);
        let keys: Vec<_> = elements(xml, "Contents").into_iter().filter_map(|inside| text(inside, "Key")).collect();
        assert_eq!(keys, ["a&b&&<", "c"]);
        assert_eq!(text(&format!("<E>{}</E>", escape("<\"&>")), "E").as_deref(), Some("<\"&>"));
    }

    #[test]
    fn is_not_confused_by_what_is_no_xml() {
        for broken in
            ["", "<", "<Key", "<Key>", "<Key>a", "<Key>a</", "<Key>a</Ke", "</Key>", "<Key a='", "Key>x</Key>"]
        {
            assert_eq!(text(broken, "Key"), None, "{broken}");
        }
        assert_eq!(text("<Key>a&b&nope;&#xfffffff;</Key>", "Key").as_deref(), Some("a&b&nope;&#xfffffff;"));
        assert_eq!(text("<Key>é&é;</Key>", "Key").as_deref(), Some("é&é;"));
    }
}
