//! An S3-compatible store for the tests: `s3-server FOLDER KEY SECRET`. Buckets are folders in FOLDER. It prints its
//! address on a line, and ends when its standard input does, so that it never outlives the test that started it.
//! What it stores and how it checks signatures is s3s and s3s-fs; nothing of it is ours.
//!
//! `s3-server presign METHOD ENDPOINT BUCKET OBJECT KEY SECRET` prints a presigned URL, made by rusty-s3.

use std::{error::Error, io::Read, net::SocketAddr, time::Duration};

use hyper_util::rt::TokioIo;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use s3s::{auth::SimpleAuth, service::S3ServiceBuilder};
use tokio::net::TcpListener;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, rest @ ..] = &arguments[..]
        && word == "presign"
    {
        return presign(rest);
    }
    let [folder, key, secret] = &arguments[..] else {
        return Err("usage: s3-server FOLDER KEY SECRET".into());
    };
    let store = s3s_fs::FileSystem::new(folder).map_err(|error| format!("{folder}: {error:?}"))?;
    let mut builder = S3ServiceBuilder::new(store);
    builder.set_auth(SimpleAuth::from_single(key.as_str(), secret.as_str()));
    let service = builder.build();

    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("{}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            let service = service.clone();
            tokio::spawn(async move {
                // A client that goes away in the middle is what the tests are about.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

fn presign(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [method, endpoint, bucket, object, key, secret] = arguments else {
        return Err("usage: s3-server presign METHOD ENDPOINT BUCKET OBJECT KEY SECRET".into());
    };
    let bucket = Bucket::new(endpoint.parse::<url::Url>()?, UrlStyle::Path, bucket.clone(), "us-east-1")?;
    let keys = Credentials::new(key.as_str(), secret.as_str());
    let hour = Duration::from_secs(3600);
    println!(
        "{}",
        match method.as_str() {
            "PUT" => bucket.put_object(Some(&keys), object).sign(hour),
            "GET" => bucket.get_object(Some(&keys), object).sign(hour),
            other => return Err(format!("no presigned {other}").into()),
        }
    );
    Ok(())
}
