//! Real servers for sessions: nginx with every sort of listener, a gRPC server from PyPI.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

pub use crate::server_support::not_run;
use crate::server_support::python_with_grpc;

/// Longer than anything takes on a busy machine.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Server {
    child: Child,
    pub folder: PathBuf,
    pub ports: Vec<u16>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("an address").port()).collect()
}

fn wait_for(child: &mut Child, ports: &[u16]) -> bool {
    let limit = Instant::now() + SOON;
    while Instant::now() < limit {
        if ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
            return true;
        }
        if child.try_wait().expect("our child").is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it does not listen on {ports:?}");
}

/// The listeners of [`nginx`].
pub const PLAIN: usize = 0;
pub const SHORT: usize = 1;
pub const H2C: usize = 2;
pub const H2C_SHORT: usize = 3;
pub const TLS: usize = 4;
pub const TLS_H2: usize = 5;

/// An nginx whose answers say `connection:request:protocol`, also at `folder/socket`; `None` where it is not installed.
pub fn nginx() -> Option<Server> {
    if !Path::new("/usr/sbin/nginx").exists() {
        not_run("nginx is not installed");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder").keep();
    let script = r"
        set -e
        key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.pem -days 30 -subj /CN=ca
        openssl req $key -keyout key.pem -out csr.pem -subj /CN=localhost
        printf subjectAltName=DNS:localhost,IP:127.0.0.1 > names
        openssl x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem
    ";
    let output = Command::new("sh").args(["-c", script]).current_dir(&folder).output().expect("sh");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for _ in 0..5 {
        let ports = free_ports(6);
        let listen = |index: usize, words: &str| format!("listen 127.0.0.1:{}{words};", ports[index]);
        let place = folder.display();
        let server = |words: &str| {
            format!(
                "server {{ {words} http2_max_concurrent_streams 10;
                   ssl_certificate {place}/cert.pem; ssl_certificate_key {place}/key.pem;
                   location / {{ return 200 \"$connection:$connection_requests:$server_protocol\"; }}
                   location /large {{ alias {place}/large; }}
                   location /small {{ client_max_body_size 1k; proxy_pass http://127.0.0.1:1; }} }}\n"
            )
        };
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {place}/{name};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/error.log;
             events {{ worker_connections 1024; }}
             http {{ access_log off; {paths} {}{}{}{}{}{} }}\n",
            server(&format!("{} listen unix:{place}/socket; keepalive_requests 100000;", listen(PLAIN, ""))),
            server(&format!("{} keepalive_requests 5;", listen(SHORT, ""))),
            server(&format!("{} keepalive_requests 100000;", listen(H2C, " http2"))),
            server(&format!("{} keepalive_requests 5;", listen(H2C_SHORT, " http2"))),
            server(&listen(TLS, " ssl")),
            server(&listen(TLS_H2, " ssl http2")),
        );
        fs::write(folder.join("nginx.conf"), config).expect("written");
        fs::write(folder.join("large"), vec![b'x'; 5 << 20]).expect("written");
        let mut child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx");
        if wait_for(&mut child, &ports) {
            return Some(Server { child, folder, ports });
        }
    }
    panic!("nginx: {}", fs::read_to_string(folder.join("error.log")).unwrap_or_default());
}

const GRPC: &str = r#"
import sys, threading, time
from concurrent import futures
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

running = most = 0
lock = threading.Lock()

def slow(request, context):
    global running, most
    with lock:
        running += 1
        most = max(most, running)
    time.sleep(0.02)
    with lock:
        running -= 1
        return b"%d" % most

def length(request, context):
    return b"%d" % len(request)

def fail(request, context):
    context.abort(grpc.StatusCode.UNAVAILABLE, "no café\n100%")

class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        found = {"/test.Test/Slow": slow, "/test.Test/Length": length, "/test.Test/Fail": fail}.get(details.method)
        return found and grpc.unary_unary_rpc_method_handler(found)

def start(port, with_health):
    server = grpc.server(futures.ThreadPoolExecutor(50),
        options=[("grpc.max_concurrent_streams", 10), ("grpc.max_receive_message_length", 64 << 20), ("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Handler(),))
    if with_health:
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        servicer.set("shop", health_pb2.HealthCheckResponse.SERVING)
        servicer.set("down", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    return server

servers = [start(sys.argv[1], True), start(sys.argv[2], False)]
threading.Event().wait()
"#;

/// A gRPC server with the health service on its first port, and without on the second; `None` where it cannot be had.
pub fn grpc() -> Option<Server> {
    let folder = tempfile::tempdir().expect("a folder").keep();
    let (python, packages) = python_with_grpc()?;
    for _ in 0..5 {
        let ports = free_ports(2);
        let mut child = Command::new(&python)
            .env("PYTHONPATH", &packages)
            .args(["-c", GRPC])
            .args(ports.iter().map(u16::to_string))
            .stdin(Stdio::null())
            .spawn()
            .expect("python");
        if wait_for(&mut child, &ports) {
            return Some(Server { child, folder, ports });
        }
    }
    panic!("the gRPC server does not start");
}
