//! nginx, serving the same file over the same TLS to the same client.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::space::{Process, Space};

const START_MAX: Duration = Duration::from_secs(10);

/// A running nginx.
pub(crate) struct Nginx {
    pub(crate) process: Process,
    /// Where it serves the folder.
    pub(crate) base: String,
    /// Its own name and TLS library.
    pub(crate) words: String,
}

impl Nginx {
    /// Starts one worker on a free port; `None` when nginx is not installed.
    pub(crate) async fn start(space: &Space, served: &Path) -> Result<Option<Self>> {
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"].into_iter();
        let Some(program) = program.map(Path::new).find(|path| path.is_file()) else { return Ok(None) };
        let about = Command::new(program).arg("-V").output()?;
        let about = String::from_utf8_lossy(&about.stderr).into_owned();
        let words: Vec<&str> = about.lines().filter_map(|line| line.split_once(": ").map(|(_, words)| words)).collect();
        let library =
            about.lines().find_map(|line| line.strip_prefix("built with ")).unwrap_or("an unknown TLS library");
        let words = format!("{} with {library}", words.first().copied().unwrap_or("nginx"));

        let folder = space.folder("nginx");
        std::fs::create_dir_all(&folder)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let files = space.files("nginx");
        // As root its worker would become another user, who cannot read our folder.
        use std::os::unix::fs::MetadataExt as _;
        let user = if std::fs::metadata("/proc/self")?.uid() == 0 { "user root;" } else { "" };
        let settings = format!(
            "{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n\
             events {{}}\n\
             http {{ access_log off; sendfile on; default_type application/octet-stream;\n\
             client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;\n\
             uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;\n\
             server {{ listen 127.0.0.1:{port} ssl; root {root};\n\
             ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_client_certificate {trust};\n\
             ssl_verify_client on; ssl_protocols TLSv1.3; }} }}\n",
            folder = folder.display(),
            root = served.display(),
            certificate = files.certificate.display(),
            key = files.key.display(),
            trust = files.trust.display(),
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, settings)?;
        let log = std::fs::File::create(folder.join("out.log"))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(&folder).arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = Process(command.spawn().context("cannot start nginx")?);
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > START_MAX || !matches!(process.0.try_wait(), Ok(None)) {
                bail!("nginx did not start:\n{}", std::fs::read_to_string(folder.join("out.log")).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Some(Self { process, base: format!("https://127.0.0.1:{port}"), words }))
    }
}
