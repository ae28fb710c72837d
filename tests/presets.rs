//! Presets: what `[app] preset` promises, with the real servers.

use std::{
    io::{Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use boathook::{
    config::{self, Config, Listener},
    hook::Hook,
    preset::NAMES,
    problem::Problem,
};
use preset_support::{Load, Server, Stop, isolated, start_backend, stop_bare, stop_pod, stop_under_boathook};
use server_support::{free_port, is_root, needs, not_run};
use support::{Place, until};

mod preset_support;
mod server_support;
mod support;

fn nginx_on(place: &Place, address: &str, port: u16, more: &str) -> Option<Server> {
    let program = needs("nginx")?;
    start_backend(&place.path("backend"));
    place.write(
        "nginx.conf",
        &place.expand(&format!(
            "daemon off; worker_processes 1; pid @/pid; error_log @/errors;
             events {{}}
             http {{ access_log off; client_body_temp_path @/1; proxy_temp_path @/2;
                     fastcgi_temp_path @/3; uwsgi_temp_path @/4; scgi_temp_path @/5;
                     server {{ listen {address}:{port};
                       location / {{ return 200 'quick\\n'; }}
                       location /up {{ proxy_pass http://unix:@/backend; proxy_request_buffering off; }}
                       location /slow {{ proxy_pass http://unix:@/backend; }}
                       {more} }} }}"
        )),
    );
    Some(Server::new("nginx", port, &[&program, "-p", "@/", "-c", "@/nginx.conf"]))
}

fn nginx(place: &Place) -> Option<Server> {
    nginx_on(place, "127.0.0.1", free_port(), "")
}

fn apache(place: &Place, mpm: &str) -> Option<Server> {
    let (program, port) = (needs("apache2")?, free_port());
    start_backend(&place.path("backend"));
    std::fs::create_dir(place.path("www")).expect("made");
    place.write("www/index.html", "quick\n");
    let modules = [&format!("mpm_{mpm}"), "authz_core", "dir", "proxy", "proxy_http"];
    let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"));
    let user = if is_root() { "User nobody\nGroup nogroup\n" } else { "" };
    // What it does with those that are too many, and how long that takes, stands in the preset.
    let spare = if mpm == "prefork" { "StartServers 40\nMaxSpareServers 200\n" } else { "" };
    place.write(
        "httpd.conf",
        &place.expand(&format!(
            "ServerRoot @/\nServerName test\n{}{user}{spare}Listen 127.0.0.1:{port}\nPidFile @/pid\nErrorLog @/errors\n\
             DocumentRoot @/www\nProxyPass /slow unix:@/backend|http://backend/slow\n\
             ProxyPass /up unix:@/backend|http://backend/up\n",
            modules.concat()
        )),
    );
    Some(Server::new("apache", port, &[&program, "-DFOREGROUND", "-f", "@/httpd.conf"]))
}

fn haproxy(place: &Place, mode: &[&str]) -> Option<Server> {
    let (program, port) = (needs("haproxy")?, free_port());
    start_backend(&place.path("backend"));
    place.write(
        "haproxy.cfg",
        &place.expand(&format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             frontend front\n bind 127.0.0.1:{port}\n\
             \x20http-request return status 200 content-type text/plain string quick if {{ path / }}\n\
             \x20default_backend back\n\
             backend back\n server one unix@@/backend\n"
        )),
    );
    Some(Server::new("haproxy", port, &[&[program.as_str()], mode, &["-db", "-f", "@/haproxy.cfg"]].concat()))
}

fn caddy(place: &Place) -> Option<Server> {
    let (program, port) = (needs("caddy")?, free_port());
    start_backend(&place.path("backend"));
    place.write(
        "Caddyfile",
        &place.expand(&format!(
            "{{\n admin off\n auto_https off\n}}\nhttp://:{port} {{\n bind 127.0.0.1\n @quick path /\n respond @quick quick\n\
             \x20@other not path /\n reverse_proxy @other unix/@/backend\n}}\n"
        )),
    );
    Some(Server::new("caddy", port, &[&program, "run", "--adapter", "caddyfile", "--config", "@/Caddyfile"]))
}

fn lighttpd(place: &Place) -> Option<Server> {
    let (program, port) = (needs("lighttpd")?, free_port());
    start_backend(&place.path("backend"));
    std::fs::create_dir(place.path("www")).expect("made");
    place.write("www/index.html", "quick\n");
    place.write(
        "lighttpd.conf",
        &place.expand(&format!(
            "server.modules = ( \"mod_proxy\" )\nserver.document-root = \"@/www\"\nserver.bind = \"127.0.0.1\"\n\
             server.port = {port}\nserver.errorlog = \"@/errors\"\nindex-file.names = ( \"index.html\" )\n\
             $HTTP[\"url\"] =~ \"^/(slow|up)\" {{ proxy.server = ( \"\" => ( ( \"host\" => \"@/backend\" ) ) ) }}\n"
        )),
    );
    Some(Server::new("lighttpd", port, &[&program, "-D", "-f", "@/lighttpd.conf"]))
}

fn varnish(place: &Place, more: &str) -> Option<Server> {
    let (program, port) = (needs("varnishd")?, free_port());
    start_backend(&place.path("backend"));
    place.write(
        "default.vcl",
        &place.expand(&format!(
            "vcl 4.1;\nimport std;\nbackend default {{ .path = \"@/backend\"; }}\n\
             sub vcl_recv {{ if (req.url == \"/\") {{ return (synth(200, \"quick\")); }} return (pass); }}\n{more}"
        )),
    );
    let address = format!("127.0.0.1:{port}");
    let words = ["-F", "-T", "none", "-n", "@/varnish", "-a", &address, "-f", "@/default.vcl"];
    Some(Server::new("varnish", port, &[&[program.as_str()], words.as_slice()].concat()))
}

/// Stops it under load and tells how that went.
fn stop(what: &str, place: Place, server: &Server, load: &Load) -> Stop {
    let stop = stop_under_boathook(place, server, load);
    eprintln!("{what}: gone after {:.2?}, {} requests, {:?}", stop.gone, stop.requests, stop.failures);
    stop
}

fn drops_nothing(what: &'static str, make: impl FnOnce(&Place) -> Option<Server> + Send + 'static) {
    isolated(move || {
        let place = Place::bare();
        let Some(server) = make(&place) else { return };
        let load = Load::default();
        stop(what, place, &server, &load).assert_graceful(&load);
    });
}

#[test]
fn nginx_drops_nothing() {
    drops_nothing("nginx", nginx);
}

#[test]
fn apache_drops_nothing() {
    drops_nothing("apache event", |place| apache(place, "event"));
    drops_nothing("apache prefork", |place| apache(place, "prefork"));
}

#[test]
fn haproxy_drops_nothing() {
    drops_nothing("haproxy -W", |place| haproxy(place, &["-W"]));
    drops_nothing("haproxy", |place| haproxy(place, &[]));
}

#[test]
fn caddy_drops_nothing() {
    drops_nothing("caddy", caddy);
}

#[test]
fn lighttpd_drops_nothing() {
    drops_nothing("lighttpd", lighttpd);
}

/// It has no graceful stop: what boathook waits for is all that keeps requests.
#[test]
fn varnish_drops_nothing() {
    isolated(|| {
        let place = Place::bare();
        let Some(server) = varnish(&place, "") else { return };
        let load = Load { keep_alive: 0, ..Load::default() };
        let stop = stop("varnish", place, &server, &load);
        assert_eq!((stop.dropped(), stop.was_killed), (0, false), "{stop:?}");
        assert!(stop.gone <= load.delay + load.slow + Duration::from_secs(2), "{stop:?}");
    });
}

/// nginx waits for connections that were opened and never used, for ever.
#[test]
fn nginx_is_not_held_by_unused_connections() {
    isolated(|| {
        let place = Place::bare();
        let Some(server) = nginx(&place) else { return };
        let load = Load { unused: 2, ..Load::default() };
        let stop = stop("nginx with unused connections", place, &server, &load);
        assert_eq!((stop.dropped(), stop.was_killed, stop.code), (0, false, 0), "{stop:?}");
        assert!(stop.gone <= load.delay + load.slow + Duration::from_secs(2), "{stop:?}");
    });
}

/// A preset cannot know where the server listens: when it is not where it usually is, all that listen are drained.
#[test]
fn a_server_on_another_port_is_drained_too() {
    isolated(|| {
        let place = Place::bare();
        let Some(mut server) = nginx_on(&place, "0.0.0.0", free_port(), "") else { return };
        server.names_no_ports = true;
        let load = Load::default();
        stop("nginx on another port", place, &server, &load).assert_graceful(&load);
    });
}

/// PHP-FPM and nginx in two containers of one pod, each with its boathook.
#[test]
fn php_fpm_behind_nginx_drops_nothing() {
    isolated(|| {
        let Some(program) = needs("php-fpm*") else { return };
        let (port, fpm_port) = (free_port(), free_port());
        let fpm = Place::bare();
        fpm.write("index.php", "<?php usleep((int)($_GET['ms'] ?? 0) * 1000); echo str_repeat('x', 20000);\n");
        let user = if is_root() { "user = nobody\ngroup = nogroup\n" } else { "" };
        fpm.write(
            "fpm.conf",
            &fpm.expand(&format!(
                "[global]\nerror_log = @/errors\n[www]\n{user}listen = 127.0.0.1:{fpm_port}\npm = static\n\
                 pm.max_children = 8\n"
            )),
        );
        let place = Place::bare();
        // The scripts are readable for every user once nginx's place has opened its own folder; here it is PHP's.
        open(&fpm);
        let pass = format!(
            "location ~ php {{ fastcgi_pass 127.0.0.1:{fpm_port}; fastcgi_request_buffering off;
               fastcgi_param SCRIPT_FILENAME {}; fastcgi_param QUERY_STRING $query_string;
               fastcgi_param REQUEST_METHOD $request_method; fastcgi_param CONTENT_LENGTH $content_length; }}",
            fpm.path("index.php").display()
        );
        let Some(mut server) = nginx_on(&place, "127.0.0.1", port, &pass) else { return };
        (server.quick, server.slow, server.upload) = ("/index.php", Some("/index.php"), Some("/index.php"));
        let config = format!("grace-period = \"30s\"\n[app]\npreset = \"php-fpm\"\nports = [{port}, {fpm_port}]\n");
        let mut agent = fpm.configured(&config).run(&[&program, "-F", "-R", "-y", "@/fpm.conf"]);
        let kubelet: SocketAddr = agent.address();
        let load = Load::default();
        let stop = stop_pod(place, &server, &load, &[kubelet]);
        eprintln!("php-fpm: gone after {:.2?}, {} requests, {:?}", stop.gone, stop.requests, stop.failures);
        assert_eq!((stop.dropped(), stop.was_killed), (0, false), "{stop:?}");
        assert_eq!(agent.end(), 0, "{}", agent.log());
        assert!(agent.log().contains("php-fpm ends\" outcome=\"succeeded\""), "{}", agent.log());
    });
}

fn open(place: &Place) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place.folder(), PermissionsExt::from_mode(0o755)).expect("opened");
}

#[test]
fn without_boathook_nginx_drops() {
    isolated(|| {
        let place = Place::bare();
        let Some(server) = nginx(&place) else { return };
        let load = Load { before: Duration::from_millis(300), ..Load::default() };
        let stop = stop_bare(&place, &server, &load, libc::SIGTERM);
        assert!(stop.dropped() > 0, "{stop:?}");
    });
}

/// With the text of a configuration, whatever it names in the environment.
fn parse(text: &str) -> Result<Config, String> {
    let problems = |problems: Vec<Problem>| problems.iter().map(|problem| format!("{problem}\n")).collect::<String>();
    config::parse("test", text, &|_| None, Listener::Needed).map_err(problems)
}

#[test]
fn every_preset_fits_every_grace_period() {
    for name in NAMES {
        for grace in ["1s", "2s", "5s", "10s", "30s", "5m"] {
            for more in ["", "[pre-stop]\ndeadline = \"500ms\"\n", "[[post-stop.step]]\nsleep = \"1s\"\n"] {
                let text = format!(
                    "grace-period = \"{grace}\"\n[server]\nlisten = \"off\"\n[app]\npreset = \"{name}\"\n{more}"
                );
                let config = parse(&text).unwrap_or_else(|problems| panic!("{text}\n{problems}"));
                assert!(!config.hook(Hook::PreStop).steps.is_empty(), "{text}");
                let worst = config.hook(Hook::PreStop).plan().worst_case();
                assert!(worst.iter().all(|(start, end)| start < end), "{text}: a step gets no time: {worst:?}");
            }
        }
    }
}

#[test]
fn what_the_user_writes_wins() {
    let own = "[server]\nlisten = \"off\"\n[app]\npreset = \"nginx\"\nports = [8080]\nstop-signal = \"TERM\"\n\
               [[pre-stop.step]]\nsleep = \"1s\"\n";
    let config = parse(own).expect("good");
    assert_eq!((&config.app.ports, &config.app.usual_ports), (&vec![8080], &vec![]));
    assert_eq!((config.app.stop_signal, config.app.graceful_stop), (Some(libc::SIGTERM), true));
    let names: Vec<&str> = config.hook(Hook::PreStop).steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["sleep"]);
    assert_eq!(config.app.preset.as_deref(), Some("nginx: graceful-stop"));
    let alone = parse("[server]\nlisten = \"off\"\n[app]\npreset = \"nginx\"\n").expect("good");
    assert_eq!(alone.app.preset.as_deref(), Some("nginx: the usual ports, stop-signal, graceful-stop, pre-stop"));
    assert_eq!((alone.app.stop_signal, &alone.app.usual_ports), (Some(libc::SIGQUIT), &vec![80, 443]));
}

#[test]
fn what_is_wrong_is_said_where_it_can_be_changed() {
    let wrong = "[server]\nlisten = \"off\"\ntoken = \"x\"\ntoken-env = \"HOME\"\n[app]\npreset = \"ngnix\"\n";
    let problems = parse(wrong).expect_err("two problems");
    let lines: Vec<&str> = problems.lines().collect();
    assert!(lines.contains(&"test:4: server: token-env: there is a token as well"), "{problems}");
    assert!(lines.contains(&"test:6: app: preset: there is no preset `ngnix`"), "{problems}");
    assert!(problems.contains("did you mean \"nginx\"? known are: nginx, apache, "), "{problems}");
}

/// As `init` prints it, and with everything of the preset written out.
#[test]
fn what_init_makes_is_a_good_configuration() {
    let place = Place::bare();
    for name in NAMES {
        let said = place.boathook(&["init", "--preset", name]);
        assert_eq!((said.code, said.stderr), (0, format!("boathook: preset {name}\n")));
        let with_preset = parse(&said.stdout).unwrap_or_else(|problems| panic!("{}\n{problems}", said.stdout));
        let written_out = said.stdout.replace(&format!("preset = \"{name}\"\n"), "");
        let is_key = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[');
        let lines = written_out.lines().map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line));
        let written_out: Vec<&str> = lines.collect();
        let by_hand = parse(&written_out.join("\n")).unwrap_or_else(|problems| panic!("{written_out:#?}\n{problems}"));
        let same = |config: &Config| {
            let steps = &config.hook(Hook::PreStop).steps;
            let names: Vec<String> = steps.iter().map(|step| step.name.clone()).collect();
            (names, config.app.stop_signal, config.app.stop_on.clone(), config.app.graceful_stop)
        };
        assert_eq!(same(&with_preset), same(&by_hand), "{name}");
        assert_eq!(with_preset.app.usual_ports, by_hand.app.ports, "{name}");
    }
    let said = place.boathook(&["init", "--", "some", "thing"]);
    let config = parse(&said.stdout).expect("good");
    assert_eq!((said.code, config.hook(Hook::PreStop).steps.len()), (0, 1));
    assert!(said.stderr.contains("no preset, for the command is `some`"), "{}", said.stderr);
    let said = place.boathook(&["init", "--", "sh", "-c", "exec nginx -g 'daemon off;'"]);
    assert!(said.stdout.contains("\npreset = \"nginx\"\n"), "{}", said.stdout);
}

#[test]
fn init_writes_for_its_owner_alone_and_over_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::bare();
    assert_eq!(place.boathook(&["init", "--preset", "nginx", "--output", "@/made.toml"]).code, 0);
    let made = place.read("made.toml");
    let mode = std::fs::metadata(place.path("made.toml")).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = place.boathook(&["check", "--config", "@/made.toml"]);
    assert!(said.code == 0 && said.stdout.contains("from preset nginx: the usual ports, "), "{said:?}");
    let token = made.split("BOATHOOK_TOKEN:-").nth(1).and_then(|rest| rest.split('}').next()).expect("a token");
    assert!(token.len() == 43 && made.matches(token).count() == 3, "{made}");
    assert!(!said.stdout.contains(token), "{said:?}");
    let again = place.boathook(&["init", "--preset", "caddy", "--output", "@/made.toml"]);
    assert_eq!((again.code, place.read("made.toml")), (1, made));
    let unknown = place.boathook(&["init", "--preset", "ngnix"]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (64, ""));
    assert!(unknown.stderr.contains("did you mean \"nginx\"? known are: nginx, apache, "), "{}", unknown.stderr);
}

/// Exec hooks without an agent: nginx is PID 1 of its own, and the hook's process ends with it.
#[test]
fn an_exec_hook_ends_nginx_as_pid_1() {
    isolated(|| {
        if !is_root() {
            return not_run("a PID namespace needs root");
        }
        let place = Place::bare();
        let Some(server) = nginx(&place) else { return };
        let config = format!("[server]\nlisten = \"off\"\n[app]\npreset = \"nginx\"\nports = [{}]\n", server.port);
        // Nobody has asked here before, so it waits for the settle time.
        let place = place.configured(&format!("grace-period = \"4s\"\n{config}"));
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        unshare.args(server.command.iter().map(|word| place.expand(word)));
        place.dress(&mut unshare);
        let mut outer = unshare.spawn().expect("it starts");
        let pid = until("nginx's pid", || {
            let children = format!("/proc/{0}/task/{0}/children", outer.id());
            std::fs::read_to_string(children).ok()?.split_whitespace().next()?.parse::<i32>().ok()
        });
        until("nginx", || std::net::TcpStream::connect(("127.0.0.1", server.port)).ok());
        let mut hook = std::process::Command::new("nsenter");
        hook.args(["--target", &pid.to_string(), "--pid", "--mount", "--", support::BOATHOOK, "shutdown"]);
        place.dress(&mut hook);
        let said = place.finish(hook);
        let status = outer.wait().expect("ours");
        // The kernel kills all of the namespace with its PID 1: the hook may or may not have got so far as to say so.
        assert!([0, 137].contains(&said.code), "{said:?}");
        assert!(status.success(), "nginx ended with {status}: {said:?}");
    });
}

/// nginx under its preset with a grace period of 4 s, as it serves.
fn nginx_with_post_stop() -> Option<(support::Agent, u16)> {
    let place = Place::bare();
    let server = nginx(&place)?;
    let config = format!(
        "grace-period = \"4s\"\n[app]\npreset = \"nginx\"\nports = [{}]\n[[post-stop.step]]\nfile = {{ touch = \"@/post-stop\" }}\n",
        server.port
    );
    let words: Vec<&str> = server.command.iter().map(String::as_str).collect();
    let agent = place.configured(&config).run(&words);
    until("nginx", || std::net::TcpStream::connect(("127.0.0.1", server.port)).ok());
    Some((agent, server.port))
}

/// Outside Kubernetes there is no hook: the stop signal starts pre-stop, and the main process ends within it. The preset's
/// settle time of 15 s would fill a grace period of 4 s, and the drain would fail.
#[test]
fn the_stop_signal_alone_does_the_same() {
    isolated(|| {
        let Some((mut agent, _)) = nginx_with_post_stop() else { return };
        agent.signal(libc::SIGTERM);
        assert_eq!(agent.end(), 0);
        let log = agent.log();
        assert!(log.contains("step=\"nginx ends\" outcome=\"succeeded\""), "{log}");
        assert!(log.contains("settle time 1.3s passed"), "{log}");
        assert!(!log.contains("stop signal passed on"), "{log}");
        assert!(agent.place.exists("post-stop"), "{log}");
    });
}

/// The stop signal in the middle of the drain means that two seconds are left: they are nginx's, and it gets QUIT at once.
#[test]
fn in_a_hurry_the_server_gets_its_graceful_stop_at_once() {
    isolated(|| {
        let Some((mut agent, port)) = nginx_with_post_stop() else { return };
        let mut slow = std::net::TcpStream::connect(("127.0.0.1", port)).expect("nginx");
        let request = "GET /slow?ms=700 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let mut kubelet = agent.kubelet();
        let hook = std::thread::spawn(move || kubelet.call("/shutdown"));
        agent.wait_log("step=\"drain\" kind=\"drain\"");
        slow.write_all(request.as_bytes()).expect("sent");
        let begun = Instant::now();
        agent.signal(libc::SIGTERM);
        let mut answer = String::new();
        slow.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("xxx"), "{} bytes", answer.len());
        assert_eq!(agent.end(), 0);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        hook.join().expect("no panic").expect("an answer to the hook");
        let log = agent.log();
        assert!(log.contains("step=\"drain\" outcome=\"given-up\""), "{log}");
        assert!(log.contains("step=\"nginx ends\" outcome=\"succeeded\""), "{log}");
    });
}
