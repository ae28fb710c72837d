//! Short lists in order. The standard library's sorts are made for long lists and are 3 to 4 kB of the binary for each
//! type; what is put in order here are a few dozen ports, problems or names.

/// Puts an item behind those that do not come after it.
pub fn insert_by_key<T, K: Ord>(list: &mut Vec<T>, item: T, key: impl Fn(&T) -> K) {
    let at = list.partition_point(|other| key(other) <= key(&item));
    list.insert(at, item);
}

/// Each value once, in order.
pub fn set_of<T: Ord>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut set = Vec::new();
    for value in values {
        if let Err(at) = set.binary_search(&value) {
            set.insert(at, value);
        }
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn puts_in_order() {
        assert_eq!(set_of([3, 1, 2, 3, 1, 9, 0]), [0, 1, 2, 3, 9]);
        let mut list = Vec::new();
        for item in [(2, 'a'), (1, 'b'), (2, 'c'), (0, 'd'), (1, 'e')] {
            insert_by_key(&mut list, item, |(number, _)| *number);
        }
        assert_eq!(list, [(0, 'd'), (1, 'b'), (1, 'e'), (2, 'a'), (2, 'c')]);
    }
}
