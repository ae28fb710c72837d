//! A web server as some are: QUIT lets it finish what it is doing, TERM cuts it. Static, for images without anything
//! else; rustc builds it by itself. `/slow?2000` is answered after so many milliseconds, `/slow` says how many of those
//! are being served, and everything else is answered at once. With the word `stubborn` it ignores both signals.

use std::{
    env,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    process, thread,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

static FINISH: AtomicBool = AtomicBool::new(false);
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);
static SLOW: AtomicUsize = AtomicUsize::new(0);

const SIGQUIT: i32 = 3;
const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn write(descriptor: i32, bytes: *const u8, count: usize) -> isize;
    fn _exit(code: i32) -> !;
}

extern "C" fn cut(_: i32) {
    let said = b"shop: cut by TERM\n";
    // SAFETY: both may be called in a handler of signals, and the bytes live for ever.
    unsafe {
        write(1, said.as_ptr(), said.len());
        _exit(0)
    }
}

extern "C" fn finish(_: i32) {
    FINISH.store(true, SeqCst);
}

fn main() {
    let stubborn = env::args().any(|word| word == "stubborn");
    let handlers = [(SIGTERM, cut as *const () as usize), (SIGQUIT, finish as *const () as usize)];
    for (number, handler) in handlers {
        // SAFETY: the handlers do only what handlers may.
        unsafe { signal(number, if stubborn { SIG_IGN } else { handler }) };
    }
    let listener = TcpListener::bind("0.0.0.0:8080").expect("port 8080");
    listener.set_nonblocking(true).expect("a socket");
    println!("shop: open");
    while !FINISH.load(SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                UNDER_WAY.fetch_add(1, SeqCst);
                thread::spawn(move || {
                    let _ = serve(stream);
                    UNDER_WAY.fetch_sub(1, SeqCst);
                });
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(Duration::from_millis(2)),
            Err(error) => println!("shop: {error}"),
        }
    }
    drop(listener);
    while UNDER_WAY.load(SeqCst) > 0 {
        thread::sleep(Duration::from_millis(2));
    }
    println!("shop: finished after QUIT");
    process::exit(0);
}

fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            count => request.extend_from_slice(&part[..count]),
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default();
    if let Some(wait) = path.strip_prefix("/slow?").and_then(|wait| wait.parse().ok()) {
        SLOW.fetch_add(1, SeqCst);
        thread::sleep(Duration::from_millis(wait));
        SLOW.fetch_sub(1, SeqCst);
    }
    let body = if path == "/slow" { SLOW.load(SeqCst).to_string() } else { "whole".into() };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}
