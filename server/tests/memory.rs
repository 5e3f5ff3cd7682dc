//! What a running server keeps in memory, seen from outside: the real program, on a private PostgreSQL, whose memory is searched.
//!
//! As root its memory is readable although it is not dumpable. As another user this test cannot look into what `process.core_dumps = false` protects,
//! so it asks for core dumps and says so; everything else is the same.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use strongroom_local::{Postgres, PostgresOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use uuid::Uuid;

const SERVER: &str = env!("CARGO_BIN_EXE_strongroom-server");
/// How long what was freed may take to be freed: connections end in tasks of their own.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn values_and_the_root_key_are_gone_from_a_servers_memory_once_they_were_used() {
    let server = Running::start().await;
    let [value, in_flight] = [canary(), canary()];
    let root_key = fs::read(server.directory.join("root.key")).unwrap();

    // A value whose request is not whole yet: the search must find it, or it would find nothing.
    let mut half = server.connect().await;
    let unfinished = format!("{{\"fields\":{{\"a\":\"{in_flight}\"");
    let head = server.head("PUT", "/api/v1/secret?path=shop/half", unfinished.len() + 3);
    half.write_all(format!("{head}{unfinished}").as_bytes()).await.unwrap();
    let held = server.counts_when([in_flight.as_bytes(), server.token.as_bytes()], |counts| counts[0] > 0).await;
    println!("copies while a request is under way: {} of its value, {} of its token", held[0], held[1]);
    assert!(held.iter().all(|copies| *copies >= 1), "the search must find what is there: {held:?}");
    drop(half);

    assert_eq!(server.request("POST", "/api/v1/projects", r#"{"name":"shop"}"#).await.0, 200);
    let put = format!("{{\"fields\":{{\"a\":\"{value}\"}}}}");
    assert_eq!(server.request("PUT", "/api/v1/secret?path=shop/db", &put).await.0, 200);
    for _ in 0..20 {
        let read = server.request("GET", "/api/v1/secret?path=shop/db", "").await;
        assert!(read.0 == 200 && read.1.contains(&value), "{}", read.0);
    }
    let needles =
        [value.as_bytes(), in_flight.as_bytes(), server.token.as_bytes(), &root_key, server.instance.as_bytes()];
    let [value, in_flight, token, root_key, control] =
        server.counts_when(needles, |counts| counts[..4] == [0; 4]).await;
    println!(
        "copies afterwards: {value} of the value, {in_flight} of the unfinished one, {token} of the token, {root_key} of the root key, {control} of the control"
    );
    assert!(control >= 1, "the control must be found");
    assert_eq!(
        [value, in_flight, token, root_key],
        [0; 4],
        "copies of values, of the token or of the root key are left"
    );
}

#[tokio::test]
async fn core_files_are_off_unless_asked_for() {
    let limits = |process: u32| {
        let limits = fs::read_to_string(format!("/proc/{process}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let server = Running::start_with("").await;
    assert_eq!(limits(server.process.id()), ["0", "0"]);
    let server = Running::start_with("[process]\ncore_dumps = true\n").await;
    assert_eq!(limits(server.process.id()), limits(std::process::id()));
}

/// The program, running.
struct Running {
    instance: String,
    token: String,
    address: SocketAddr,
    process: Child,
    directory: PathBuf,
    _postgres: Postgres,
}

impl Running {
    async fn start() -> Self {
        if rustix::process::geteuid().is_root() {
            return Self::start_with("").await;
        }
        println!("NOT ROOT: the server is asked to be dumpable (process.core_dumps), or nobody could look into it");
        Self::start_with("[process]\ncore_dumps = true\n").await
    }

    async fn start_with(settings: &str) -> Self {
        let postgres = Postgres::start(PostgresOptions::for_tests()).await.unwrap();
        let directory = std::env::temp_dir().join(format!("strongroom-memory-{}", Uuid::now_v7()));
        // Also the control: the server must know its own name.
        let instance = format!("memory-{}", Uuid::new_v4().simple());
        let program = |arguments: &[&str]| {
            let mut command = Command::new(SERVER);
            command.args(arguments).env("STRONGROOM_DATABASE_URL", postgres.url()).env_remove("STRONGROOM_LOG");
            command
        };
        let out = directory.to_str().unwrap();
        let mut init = Command::new(SERVER);
        init.args(["init", "--out", out, "--instance", &instance, "--host", "127.0.0.1", "--listen", "127.0.0.1"]);
        let made = init.args(["--port", "0"]).env_remove("STRONGROOM_DATABASE_URL").output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = directory.join("server.toml");
        let text = fs::read_to_string(&file).unwrap() + settings;
        fs::remove_file(&file).unwrap();
        fs::write(&file, text).unwrap();
        let file = file.to_str().unwrap();
        let claimed = program(&["admin", "claim", "--settings", file]).output().unwrap();
        assert!(claimed.status.success(), "{}", String::from_utf8_lossy(&claimed.stderr));
        let token = String::from_utf8(claimed.stdout).unwrap().trim().to_owned();

        let mut process = program(&["run", "--settings", file]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let serving = lines.find(|line| line.contains("\"serving\"")).expect("it says where it serves");
        let serving: serde_json::Value = serde_json::from_str(&serving).unwrap();
        // Read on, or it would block once the pipe is full.
        std::thread::spawn(move || lines.for_each(drop));
        let address = serving["address"].as_str().unwrap().parse().unwrap();
        Self { instance, token, address, process, directory, _postgres: postgres }
    }

    /// Searches the server's memory until what is found is as it should be, or will not be any more. In between somebody asks for something
    /// else, as somebody always does: what is freed is wiped at once, but a stack keeps what it held until it is used again.
    async fn counts_when<const N: usize>(
        &self,
        needles: [&[u8]; N],
        as_it_should: impl Fn(&[usize; N]) -> bool,
    ) -> [usize; N] {
        let started = Instant::now();
        for search in 1.. {
            let memory = Memory::of(&self.process);
            let counts = needles.map(|needle| memory.count(needle));
            println!("search {search}, {} MiB: {counts:?}", memory.size() >> 20);
            if as_it_should(&counts) || started.elapsed() > PATIENCE {
                return counts;
            }
            // Several, so that each of the server's threads gets some.
            for _ in 0..16 {
                self.health().await;
            }
        }
        unreachable!("it returns when its patience ends")
    }

    async fn health(&self) {
        let mut stream = self.connect().await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.directory.join("ca.crt")).unwrap()).unwrap();
        let config =
            rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    fn head(&self, method: &str, target: &str, length: usize) -> String {
        format!(
            "{method} {target} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n",
            self.token
        )
    }

    /// One request on a connection of its own, which the server has closed when this returns: status and body.
    async fn request(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        stream.write_all(format!("{}{body}", self.head(method, target, body.len())).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// All memory that a process can have written to: heap, stacks, statics.
struct Memory(Vec<Vec<u8>>);

impl Memory {
    fn of(process: &Child) -> Self {
        let place = Path::new("/proc").join(process.id().to_string());
        let maps = fs::read_to_string(place.join("maps")).unwrap();
        let mut memory = File::open(place.join("mem")).expect("root, or a process that is dumpable");
        let writable =
            maps.lines().filter(|line| line.split_whitespace().nth(1).is_some_and(|rights| rights.starts_with("rw")));
        let regions = writable.filter_map(|line| {
            let (from, to) = line.split_whitespace().next()?.split_once('-')?;
            let [from, to] = [from, to].map(|address| u64::from_str_radix(address, 16).unwrap());
            let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
            memory.seek(SeekFrom::Start(from)).unwrap();
            // A region may have gone since the list was read.
            memory.read_exact(&mut bytes).ok().map(|()| bytes)
        });
        Self(regions.collect())
    }

    fn size(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Counts the second half only: an allocator writes its links over the first bytes of what was freed, and would hide what was not wiped.
    fn count(&self, needle: &[u8]) -> usize {
        let finder = memchr::memmem::Finder::new(&needle[needle.len() / 2..]);
        self.0.iter().map(|region| finder.find_iter(region).count()).sum()
    }
}

fn canary() -> String {
    format!("canary-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
