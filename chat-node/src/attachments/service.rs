use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long it may take to be installed, and to start.
const STARTS_WITHIN: Duration = Duration::from_secs(300);

/// Ended when dropped.
pub(super) struct Service {
    port: u16,
    process: Child,
}

impl Service {
    pub(super) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let process = Command::new(root.join("deploy/s3/run"))
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let service = Self { port, process };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < STARTS_WITHIN, "the service did not start");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(service.ask("PUT", "/files").starts_with("HTTP/1.1 200"), "the bucket is not made");
        service
    }

    /// The URL of its bucket.
    pub(super) fn bucket(&self, prefix: &str) -> String {
        format!(
            "s3://files/{prefix}?region=us-east-1&endpoint=http://127.0.0.1:{}&allow_http=true&\
             access_key_id=tests&secret_access_key=tests",
            self.port
        )
    }

    /// How many objects it keeps.
    pub(super) fn objects(&self) -> usize {
        self.ask("GET", "/files?list-type=2").matches("<Key>").count()
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().unwrap();
    }
}
