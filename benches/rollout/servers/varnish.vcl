vcl 4.1;

backend app {
    .path = "@SOCKET@";
}

sub vcl_recv {
    if (req.url == "/" || req.url == "/healthz") {
        return (synth(200, "made fast"));
    }
    if (req.url == "/ws") {
        return (pipe);
    }
    return (pass);
}

sub vcl_pipe {
    set bereq.http.Connection = "Upgrade";
    set bereq.http.Upgrade = req.http.Upgrade;
}

sub vcl_backend_response {
    set beresp.do_stream = true;
}
