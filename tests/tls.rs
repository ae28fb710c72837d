//! TLS against a real server (`openssl s_server`), with every kind of key, both versions, and what goes wrong.
#![cfg(feature = "tls")]

mod client_support;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::Duration,
};

use boathook::step::{End, http::Http};
use client_support::{answer, mean, run, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(10);

/// A folder with authorities, keys and certificates of each kind.
static CERTIFICATES: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let script = r#"
        set -e
        for ca in ca other; do
            openssl req -x509 -newkey rsa:2048 -nodes -keyout $ca.key -out $ca.pem -days 30 -subj "/CN=$ca"
        done
        sign() { # name, names, days, key options
            name=$1; names=$2; days=$3; shift 3
            [ -f $name.key ] || openssl genpkey "$@" -out $name.key
            openssl req -new -key $name.key -subj "/CN=$name" -out $name.csr
            printf "subjectAltName=$names" > $name.ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial $days -extfile $name.ext -out $name.pem
        }
        usual=DNS:localhost,IP:127.0.0.1
        sign rsa2048 $usual "-days 30" -algorithm RSA -pkeyopt rsa_keygen_bits:2048
        sign rsa3072 $usual "-days 30 -sha384" -algorithm RSA -pkeyopt rsa_keygen_bits:3072
        sign rsa4096 $usual "-days 30 -sha512" -algorithm RSA -pkeyopt rsa_keygen_bits:4096
        sign rsapss $usual "-days 30 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:-1" -algorithm RSA -pkeyopt rsa_keygen_bits:2048
        sign p256 $usual "-days 30" -algorithm EC -pkeyopt ec_paramgen_curve:P-256
        sign p384 $usual "-days 30" -algorithm EC -pkeyopt ec_paramgen_curve:P-384
        sign ed25519 $usual "-days 30" -algorithm ED25519
        sign named DNS:elsewhere.example "-days 30" -algorithm EC -pkeyopt ec_paramgen_curve:P-256
        sign weak $usual "-days 30" -algorithm RSA -pkeyopt rsa_keygen_bits:1024
        # `x509` cannot sign for a past time everywhere, `ca` can.
        sign old $usual "-days 30" -algorithm EC -pkeyopt ec_paramgen_curve:P-256
        touch index.txt
        printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nserial=ca.srl\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' > ca.cnf
        openssl ca -batch -notext -config ca.cnf -cert ca.pem -keyfile ca.key -in old.csr -out old.pem -extfile old.ext -startdate 20200101000000Z -enddate 20200102000000Z
        openssl pkey -in rsa2048.key -traditional -out rsa2048.pkcs1.key
        openssl pkey -in p256.key -traditional -out p256.sec1.key
        openssl pkey -in p384.key -traditional -out p384.sec1.key
        openssl pkcs8 -topk8 -in p256.key -passout pass:x -out encrypted.key
        cp ca.pem rotating.pem
    "#;
    let output = Command::new("sh").args(["-c", script]).current_dir(&folder).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
});

fn at(name: &str) -> String {
    CERTIFICATES.join(name).display().to_string()
}

struct Server(Child, u16);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with the certificate and key of this name.
fn server(name: &str, options: &[&str]) -> Server {
    let folder: &Path = &CERTIFICATES;
    let mut child = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", &format!("{name}.pem")])
        .args(["-key", &format!("{name}.key"), "-CAfile", "ca.pem"])
        .args(options)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let port = loop {
        let line = lines.next().expect("a line").expect("text");
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            break address.rsplit(':').next().expect("a port").parse().expect("a port");
        }
    };
    // Read on, so that the server never blocks.
    std::thread::spawn(move || lines.for_each(drop));
    Server(child, port)
}

async fn get(server: &Server, host: &str, options: &str) -> Result<End, String> {
    run::<Http>(&format!("step = {{ url = 'https://{host}:{}/'{options} }}", server.1), SOON).await
}

fn ca() -> String {
    format!(", ca-file = '{}'", at("ca.pem"))
}

fn done() -> Result<End, String> {
    Ok(End::Done("status 200".into()))
}

#[tokio::test]
async fn every_kind_of_server_certificate() {
    for name in ["rsa2048", "rsa3072", "rsa4096", "rsapss", "p256", "p384", "ed25519"] {
        for version in ["-tls1_2", "-tls1_3"] {
            let server = server(name, &[version]);
            assert_eq!(get(&server, "localhost", &ca()).await, done(), "{name} {version}");
            assert_eq!(get(&server, "127.0.0.1", &ca()).await, done(), "{name} {version} by address");
        }
    }
}

#[tokio::test]
async fn every_suite_and_group() {
    for suite in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
        for name in ["rsa2048", "p256"] {
            let kind = if name == "p256" { "ECDHE-ECDSA" } else { "ECDHE-RSA" };
            let server = server(name, &["-tls1_2", "-cipher", &format!("{kind}-{suite}")]);
            assert_eq!(get(&server, "localhost", &ca()).await, done(), "{kind}-{suite}");
        }
    }
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        for group in ["X25519", "P-256", "P-384"] {
            let server = server("p256", &["-tls1_3", "-ciphersuites", suite, "-groups", group]);
            assert_eq!(get(&server, "localhost", &ca()).await, done(), "{suite} {group}");
        }
    }
    for scheme in [
        "rsa_pkcs1_sha256",
        "rsa_pkcs1_sha384",
        "rsa_pkcs1_sha512",
        "rsa_pss_rsae_sha256",
        "rsa_pss_rsae_sha384",
        "rsa_pss_rsae_sha512",
    ] {
        let server = server("rsa2048", &["-tls1_2", "-sigalgs", scheme]);
        assert_eq!(get(&server, "localhost", &ca()).await, done(), "{scheme}");
    }
}

#[tokio::test]
async fn every_kind_of_client_key() {
    for version in ["-tls1_2", "-tls1_3"] {
        let server = server("p256", &[version, "-Verify", "2", "-verify_return_error"]);
        for (cert, key) in [
            ("rsa2048", "rsa2048"),
            ("rsa2048", "rsa2048.pkcs1"),
            ("rsa4096", "rsa4096"),
            ("p256", "p256"),
            ("p256", "p256.sec1"),
            ("p384", "p384"),
            ("p384", "p384.sec1"),
            ("ed25519", "ed25519"),
        ] {
            let (cert, key) = (at(&format!("{cert}.pem")), at(&format!("{key}.key")));
            let options = format!("{}, cert-file = '{cert}', key-file = '{key}'", ca());
            assert_eq!(get(&server, "localhost", &options).await, done(), "{version} {key}");
        }
        // The control: without a certificate, and with one of another authority, the server refuses.
        let refused = get(&server, "localhost", &ca()).await;
        let why = if version == "-tls1_3" {
            "the server wants a client certificate; name it with `cert-file` and `key-file`"
        } else {
            "the server refused the TLS handshake: no common suite, or it wants a client certificate"
        };
        assert_eq!(refused, Ok(End::Failed(format!("https://localhost:{}/: {why}", server.1))));
        let options = format!("{}, cert-file = '{}', key-file = '{}'", ca(), at("other.pem"), at("other.key"));
        let refused = get(&server, "localhost", &options).await;
        assert_eq!(
            refused,
            Ok(End::Failed(format!(
                "https://localhost:{}/: the server refused our client certificate: UnknownCA",
                server.1
            )))
        );
    }
}

#[tokio::test]
async fn servers_that_are_not_trusted() {
    let other = format!(", ca-file = '{}'", at("other.pem"));
    for (name, host, options, why) in [
        (
            "p256",
            "localhost",
            &other,
            "the server's certificate is signed by an unknown authority; name it with `ca-file`",
        ),
        ("old", "localhost", &ca(), "the server's certificate has expired"),
        (
            "named",
            "localhost",
            &ca(),
            "the server's certificate is not for `localhost` but for another name; see `server-name`",
        ),
        (
            "named",
            "127.0.0.1",
            &ca(),
            "the server's certificate is not for `127.0.0.1` but for another name; see `server-name`",
        ),
    ] {
        let server = server(name, &[]);
        let expected = Ok(End::Failed(format!("https://{host}:{}/: {why}", server.1)));
        assert_eq!(get(&server, host, options).await, expected, "{name}");
        assert_eq!(get(&server, host, ", insecure = true").await, done(), "{name} insecure");
    }
    let server = server("named", &[]);
    let named = format!("{}, server-name = 'elsewhere.example'", ca());
    assert_eq!(get(&server, "127.0.0.1", &named).await, done());
}

#[tokio::test]
async fn weak_and_old_servers() {
    let weak = server("weak", &["-cipher", "ALL:@SECLEVEL=0"]);
    let refused = get(&weak, "localhost", &ca()).await;
    assert!(matches!(&refused, Ok(End::Failed(why)) if !why.contains("status")), "{refused:?}");
    let plain = serve(|mut stream| async move {
        let _ = stream.write_all(answer(400, "").as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let refused = run::<Http>(&format!("step = {{ url = 'https://{plain}/', insecure = true }}"), SOON).await;
    assert_eq!(refused, Ok(End::Failed(format!("https://{plain}/: the server does not speak TLS on this port"))));
    let no_suite = server("rsa2048", &["-tls1_2", "-cipher", "AES128-SHA"]);
    let refused = get(&no_suite, "localhost", &ca()).await;
    let why = "the server refused the TLS handshake: no common suite, or it wants a client certificate";
    assert_eq!(refused, Ok(End::Failed(format!("https://localhost:{}/: {why}", no_suite.1))));
    // Plain HTTP sent to a TLS port.
    let secure = server("p256", &[]);
    let refused = run::<Http>(&format!("step = 'http://localhost:{}/'", secure.1), SOON).await;
    assert!(
        matches!(&refused, Ok(End::Failed(why)) if why.contains("not HTTP") || why.contains("closed")),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_server_that_does_not_shake_hands() {
    let silent = serve(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let step = format!("step = {{ url = 'https://{silent}/', insecure = true }}");
    let cut = run::<Http>(&step, Duration::from_secs(1)).await;
    assert_eq!(cut, Err(format!("https://{silent}/: connected, no TLS yet")));
    let closing = serve(|stream| async move { drop(stream) }).await;
    let closed = run::<Http>(&format!("step = {{ url = 'https://{closing}/', insecure = true }}"), SOON).await;
    assert!(matches!(&closed, Ok(End::Failed(why)) if why.contains("handshake")), "{closed:?}");
}

#[tokio::test]
async fn rotated_files_are_read_again() {
    let server = server("p256", &[]);
    let rotating = at("rotating.pem");
    let step = format!("step = {{ url = 'https://localhost:{}/', ca-file = '{rotating}' }}", server.1);
    let (step, _) = mean::<Http>(&step).expect("a step");
    let context = client_support::context();
    use boathook::step::Kind;
    assert_eq!(step.run(&context).await, End::Done("status 200".into()));
    std::fs::copy(at("other.pem"), &rotating).expect("rotated");
    assert!(matches!(step.run(&context).await, End::Failed(why) if why.contains("unknown authority")));
    std::fs::remove_file(&rotating).expect("removed");
    let missing = format!("https://localhost:{}/: ca-file: {rotating}: no such file or directory", server.1);
    assert_eq!(step.run(&context).await, End::Failed(missing));
}

#[tokio::test]
async fn bad_files_are_found_when_the_configuration_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let text = file("text", "hello");
    let damaged = file("damaged", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let empty = file("empty", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let (cert, key) = (at("p256.pem"), at("p384.key"));
    let dir = folder.path().display();
    for (options, problem) in [
        (
            format!("ca-file = '{dir}'"),
            format!(
                "ca-file: {dir}: it is a folder, not a regular file\n  help: the file must be there and readable when boathook starts"
            ),
        ),
        (format!("ca-file = '{text}'"), format!("ca-file: {text}: it holds no certificate in PEM")),
        (format!("ca-file = '{damaged}'"), format!("ca-file: {damaged}: its PEM is damaged")),
        (format!("ca-file = '{empty}'"), format!("ca-file: {empty}: a certificate in it cannot be read")),
        (format!("ca-file = '{cert}', cert-file = '{cert}'"), "cert-file: `key-file` is missing".into()),
        (format!("insecure = true, key-file = '{key}'"), "key-file: `cert-file` is missing".into()),
        (
            format!("insecure = true, cert-file = '{cert}', key-file = '{key}'"),
            format!("key-file: {key}: the key does not belong to {cert}"),
        ),
        (
            format!("insecure = true, cert-file = '{cert}', key-file = '{text}'"),
            format!("key-file: {text}: it holds no private key in PEM"),
        ),
        (
            format!("insecure = true, cert-file = '{cert}', key-file = '{}'", at("encrypted.key")),
            format!("key-file: {}: the key is encrypted; write it without a passphrase", at("encrypted.key")),
        ),
        (
            format!("insecure = true, cert-file = '{}', key-file = '{}'", at("weak.pem"), at("weak.key")),
            format!("key-file: {}: the RSA key has 1024 bits, at least 2048 are needed", at("weak.key")),
        ),
        ("insecure = true, server-name = 'a b'".into(), "server-name: `a b` is not a host name or address".into()),
    ] {
        let step = format!("step = {{ url = 'https://a/', {options} }}");
        assert_eq!(mean::<Http>(&step).map(|_| ()), Err(vec![format!("f: {problem}")]), "{options}");
    }
}

#[tokio::test]
async fn a_redirect_to_plain_http_is_not_followed() {
    // s_server -HTTP answers with the bytes of a file.
    let server = server("p256", &["-HTTP"]);
    let name = "redirect";
    std::fs::write(CERTIFICATES.join(name), "HTTP/1.0 302 Found\r\nLocation: http://localhost:1/x?s3cret\r\n\r\n")
        .expect("a file");
    let step = format!("step = {{ url = 'https://localhost:{}/{name}'{} }}", server.1, ca());
    let own = format!("https://localhost:{}/{name}", server.1);
    let why = format!("{own} redirects to http://localhost:1/x?…, which is not encrypted");
    assert_eq!(run::<Http>(&step, SOON).await, Ok(End::FailedForGood(why)));
}
