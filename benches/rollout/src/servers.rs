//! The table of servers, in the order in which they are shown.

use crate::server::{Abilities, Application, Server};

/// Where a signal to process 1 is the graceful stop: the hook lasts until the container ends, and takes it along.
macro_rules! signal_and_wait {
    ($signal:literal) => {
        Some(&["sh", "-c", concat!("kill -", $signal, " 1; sleep 60")])
    };
}

/// A proxy that finishes on TERM what is in flight.
const PROXY: Server = Server {
    name: "",
    needs: "",
    command: &[],
    files: &[],
    application: Application::BehindSocket,
    abilities: Abilities::ALL,
    graceful: None,
    preset: "",
    adds: "",
    stop_signal: "TERM",
    fast_signal: "KILL",
};

/// A server that is the application.
const APPLICATION: Server = Server { application: Application::Inside, ..PROXY };

const NGINX: Server = Server {
    name: "nginx",
    needs: "nginx",
    command: &["nginx", "-c", "@FOLDER@/nginx.conf", "-g", "daemon off;"],
    files: &[("nginx.conf", include_str!("../servers/nginx.conf")), ("app.conf", "server unix:@SOCKET@;\n")],
    // As in many a manifest.
    graceful: Some(&[
        "sh",
        "-c",
        "nginx -c @FOLDER@/nginx.conf -s quit; while [ -e /run/nginx.pid ]; do sleep 0.1; done",
    ]),
    preset: "nginx",
    stop_signal: "QUIT",
    fast_signal: "TERM",
    ..PROXY
};

pub const SERVERS: &[Server] = &[
    NGINX,
    Server {
        name: "nginx-with-port",
        files: &[("nginx.conf", include_str!("../servers/nginx.conf")), ("app.conf", "server @BEHIND@;\n")],
        application: Application::BehindPort,
        ..NGINX
    },
    Server {
        name: "apache",
        needs: "apache2",
        command: &["apache2", "-DFOREGROUND", "-f", "@FOLDER@/apache.conf"],
        files: &[("apache.conf", include_str!("../servers/apache.conf"))],
        graceful: signal_and_wait!("WINCH"),
        preset: "apache",
        stop_signal: "WINCH",
        fast_signal: "TERM",
        ..PROXY
    },
    Server {
        name: "haproxy",
        needs: "haproxy",
        command: &["haproxy", "-W", "-db", "-f", "@FOLDER@/haproxy.cfg"],
        files: &[("haproxy.cfg", include_str!("../servers/haproxy.cfg"))],
        graceful: signal_and_wait!("USR1"),
        preset: "haproxy",
        stop_signal: "USR1",
        fast_signal: "TERM",
        ..PROXY
    },
    Server {
        name: "caddy",
        needs: "caddy",
        command: &["caddy", "run", "--adapter", "caddyfile", "--config", "@FOLDER@/Caddyfile"],
        files: &[("Caddyfile", include_str!("../servers/Caddyfile"))],
        preset: "caddy",
        ..PROXY
    },
    Server {
        name: "lighttpd",
        needs: "lighttpd",
        command: &["lighttpd", "-D", "-f", "@FOLDER@/lighttpd.conf"],
        files: &[
            ("lighttpd.conf", include_str!("../servers/lighttpd.conf")),
            ("www/index.html", "made fast\n"),
            ("www/healthz", "made fast\n"),
        ],
        graceful: signal_and_wait!("INT"),
        preset: "lighttpd",
        stop_signal: "INT",
        fast_signal: "TERM",
        ..PROXY
    },
    Server {
        name: "varnish",
        needs: "varnishd",
        // `-T none` as its preset says: then the drain can tell whose earlier connections were.
        command: &[
            "varnishd",
            "-F",
            "-T",
            "none",
            "-n",
            "@FOLDER@/varnish",
            "-a",
            ":@PORT@",
            "-f",
            "@FOLDER@/varnish.vcl",
        ],
        files: &[("varnish.vcl", include_str!("../servers/varnish.vcl"))],
        preset: "varnish",
        fast_signal: "TERM",
        ..PROXY
    },
    Server {
        name: "envoy",
        needs: "@PYTHON@/envoy/_bin/envoy",
        command: &["@PYTHON@/envoy/_bin/envoy", "-c", "@FOLDER@/envoy.yaml", "-l", "error", "--concurrency", "2"],
        files: &[("envoy.yaml", include_str!("../servers/envoy.yaml"))],
        preset: "envoy",
        fast_signal: "TERM",
        ..PROXY
    },
    Server {
        name: "gunicorn",
        needs: "@PYTHON@/gunicorn",
        // Its control socket would be in the user's home.
        command: &[
            "env",
            "PYTHONPATH=@PYTHON@",
            "python3",
            "-m",
            "gunicorn",
            "--no-control-socket",
            "-k",
            "gthread",
            "--threads",
            "40",
            "-b",
            ":@PORT@",
            "wsgi:app",
        ],
        files: &[("wsgi.py", include_str!("../servers/wsgi.py"))],
        abilities: Abilities::NO_WEBSOCKET,
        preset: "gunicorn",
        fast_signal: "QUIT",
        ..APPLICATION
    },
    Server {
        name: "uvicorn",
        needs: "@PYTHON@/uvicorn",
        command: &[
            "env",
            "PYTHONPATH=@PYTHON@",
            "python3",
            "-m",
            "uvicorn",
            "--host",
            "0.0.0.0",
            "--port",
            "@PORT@",
            "--no-access-log",
            "asgi:app",
        ],
        files: &[("asgi.py", include_str!("../servers/asgi.py"))],
        preset: "uvicorn",
        ..APPLICATION
    },
    Server {
        name: "puma",
        needs: "puma",
        command: &["puma", "-t", "40:40", "-b", "tcp://0.0.0.0:@PORT@", "@FOLDER@/config.ru"],
        files: &[("config.ru", include_str!("../servers/config.ru"))],
        abilities: Abilities::NO_WEBSOCKET,
        preset: "puma",
        ..APPLICATION
    },
    Server {
        name: "node",
        needs: "node",
        command: &["node", "@FOLDER@/server.js", "@PORT@"],
        files: &[("server.js", include_str!("../servers/server.js"))],
        preset: "node",
        adds: "graceful-stop = true\n",
        ..APPLICATION
    },
    Server {
        name: "tomcat",
        needs: "/usr/share/tomcat10/bin/catalina.sh",
        command: &[
            "env",
            "CATALINA_BASE=@FOLDER@",
            "CATALINA_HOME=/usr/share/tomcat10",
            "/usr/share/tomcat10/bin/catalina.sh",
            "run",
        ],
        files: &[
            ("conf/server.xml", include_str!("../servers/tomcat-server.xml")),
            ("conf/web.xml", include_str!("../servers/tomcat-web.xml")),
            ("webapps/ROOT/page.jsp", include_str!("../servers/page.jsp")),
            ("logs/.keep", ""),
            ("temp/.keep", ""),
            ("work/.keep", ""),
        ],
        abilities: Abilities::NO_WEBSOCKET,
        preset: "tomcat",
        adds: "graceful-stop = true\n",
        ..APPLICATION
    },
];
