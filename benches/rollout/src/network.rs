//! A node and its pods: a bridge, and behind it for each pod a network namespace with an address of its own, as bridge
//! CNI makes them. The node's own namespace is the one that this process was started in (`main`); no namespace has a
//! name, so all of them go when the last process in them does.

use std::{
    io::{self, Write},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
};

use demo::kubelet::Place;
use tokio::{net::TcpStream, sync::oneshot, task::spawn_blocking};

use crate::namespace;

/// The gateway of the pods: from here come the kubelet's hooks and probes.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// From here come the router's connections.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

pub const APP_PORT: u16 = 8080;
const HOOK_PORT: u16 = 4665;

/// Makes the bridge. Its hardware address is fixed: otherwise it is the lowest of its ports', changes as pods come and go,
/// and leaves the pods that know the old one without an answer for seconds.
///
/// # Errors
/// `ip` is missing or refuses.
pub fn make_node() -> io::Result<()> {
    ip(&format!(
        "link set lo up\nlink add pods address 02:00:00:00:00:01 type bridge\naddr add {NODE}/24 dev pods\naddr add {ROUTER}/24 dev pods\n\
         link set pods up\n"
    ))
}

/// Runs a batch of ip(8) in the namespace of the calling thread.
fn ip(batch: &str) -> io::Result<()> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

type Errand = Box<dyn FnOnce() + Send>;

/// A handle: the namespace lives as long as something is in it.
#[derive(Clone)]
pub struct Pod {
    errands: mpsc::Sender<Errand>,
    pub address: Ipv4Addr,
}

impl Pod {
    /// `number` is another for each pod of the node's life, and less than 100.
    ///
    /// # Errors
    /// The kernel or ip(8) refuse.
    pub async fn create(number: u8) -> io::Result<Self> {
        spawn_blocking(move || Self::create_blocking(number)).await.map_err(io::Error::other)?
    }

    fn create_blocking(number: u8) -> io::Result<Self> {
        let address = Ipv4Addr::new(10, 77, 0, 100 + number);
        let (errands, inbox) = mpsc::channel::<Errand>();
        let (tell, told) = mpsc::channel();
        // Stays in the namespace: sockets and processes belong to the namespace of the thread that made them.
        thread::spawn(move || {
            let entered = namespace::own_network().map(|()| namespace::thread_id());
            let _ = tell.send(entered);
            for errand in inbox {
                errand();
            }
        });
        let thread = told.recv().map_err(io::Error::other)??;
        let namespace = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
        ip(&format!(
            "link add veth{number} type veth peer name eth0 netns {namespace}\nlink set veth{number} master pods up\n"
        ))?;
        let (tell, told) = mpsc::channel();
        let pod = Self { errands, address };
        pod.send(Box::new(move || {
            let _ = tell.send(ip(&format!(
                "link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {NODE}\n"
            )));
        }))?;
        told.recv().map_err(io::Error::other)??;
        Ok(pod)
    }

    fn send(&self, errand: Errand) -> io::Result<()> {
        self.errands.send(errand).map_err(|_| io::Error::other("the pod's thread ended"))
    }

    /// Spawns the command on a thread of its own in the pod, in the namespaces that `prepare` gives to that thread.
    async fn spawn(
        &self,
        mut command: Command,
        prepare: impl FnOnce(&mut Command) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Child> {
        let (tell, told) = oneshot::channel();
        self.send(Box::new(move || {
            thread::spawn(move || {
                let _ = tell.send(prepare(&mut command).and_then(|()| command.spawn()));
            });
        }))?;
        told.await.map_err(io::Error::other)?
    }
}

impl Place for Pod {
    /// The command becomes process 1 of a PID namespace of its own, as in a container: when it ends, all that it
    /// started does, and signals that it has no handler for do nothing.
    async fn start(&self, command: Command) -> io::Result<Child> {
        let prepare = |command: &mut Command| {
            namespace::with_own_mounts(command);
            namespace::own_processes()
        };
        self.spawn(command, prepare).await
    }

    async fn exec(&self, main: u32, command: Command) -> io::Result<Child> {
        self.spawn(command, move |_| namespace::enter(main)).await
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        TcpStream::connect((self.address, port)).await
    }

    fn host(&self) -> String {
        self.address.to_string()
    }

    fn app_port(&self) -> u16 {
        APP_PORT
    }

    fn hook_port(&self) -> u16 {
        HOOK_PORT
    }
}
