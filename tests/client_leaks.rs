//! A request that is cut leaves no descriptor and no process behind. A test binary of its own, because it counts all
//! descriptors of its process.

mod client_support;

use std::time::Duration;

use boathook::step::{http::Http, wait::Wait};
use client_support::{head, run, serve};
use tokio::io::AsyncWriteExt;

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc").count()
}

fn children() -> String {
    let own = std::process::id();
    std::fs::read_to_string(format!("/proc/self/task/{own}/children")).expect("/proc")
}

#[tokio::test]
async fn nothing_is_left() {
    const CUT: Duration = Duration::from_millis(50);
    // Servers without a task of their own, so that only the client's side can close.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let silent = (silent.local_addr().expect("an address"), silent);
    let dripping = serve(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a listener");
    let steps = [
        format!("step = 'http://{}/'", silent.0),
        format!("step = 'http://{dripping}/'"),
        format!("step = 'unix://{}'", socket.display()),
        // RFC 5737: nobody answers there, the connection hangs (or is unreachable).
        "step = 'http://192.0.2.1/'".into(),
        "step = { url = 'https://192.0.2.1/', insecure = true }".into(),
        format!("step = {{ url = 'https://{}/', insecure = true }}", silent.0),
    ];
    let all = || async {
        for step in &steps {
            let _ = run::<Http>(step, CUT).await;
            let wait = step.replace("step = '", "step = { http = '").replace("/'", "/', interval = '10ms' }");
            if !step.contains("url") && !step.contains("unix") {
                let _ = run::<Wait>(&wait, CUT).await;
            }
        }
    };
    all().await;
    let before = settled().await;
    for _ in 0..10 {
        all().await;
    }
    assert_eq!(settled().await, before);
    assert_eq!(children(), "", "no process is left");

    // The control: what is kept is counted.
    let kept = std::net::TcpStream::connect(silent.0).expect("connected");
    assert_eq!(descriptors(), before + 1);
    drop(kept);
}

/// The descriptors, once the server's tasks have noticed that their clients are gone.
async fn settled() -> usize {
    let mut before = descriptors();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = descriptors();
        if now == before {
            break;
        }
        before = now;
    }
    before
}
