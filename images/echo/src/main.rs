//! The tutorial's echo server: answers any HTTP request on port 8080 with `Hello Docker!!`, and logs one line for each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

const PORT: u16 = 8080;
const ANSWER: &str = "Hello Docker!!";
/// A request head larger than this is no request.
const MAX_HEAD: u64 = 64 << 10;
/// How long a client may stay silent.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    // As process 1 of a container no signal has an effect that is not asked for. Blocked ones are kept, so this thread
    // waits for them; the threads started below inherit the mask and are left alone.
    let mut stop = SigSet::empty();
    stop.add(Signal::SIGTERM);
    stop.add(Signal::SIGINT);
    let listener = match stop.thread_block().map_err(io::Error::from).and_then(|()| listen()) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("listen on port {PORT}: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("start server");
    thread::spawn(move || serve(&listener));
    match stop.wait() {
        Ok(signal) => {
            println!("stop server: {signal}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("wait for a signal: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Listens on both families where the kernel has IPv6.
fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))
}

fn serve(listener: &TcpListener) {
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                thread::spawn(move || {
                    if let Err(error) = answer(stream) {
                        eprintln!("answer a request: {error}");
                    }
                });
            }
            Err(error) => eprintln!("accept a connection: {error}"),
        }
    }
}

/// Reads one request with its body, and answers it.
fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let Some((line, length)) = head(&mut (&mut reader).take(MAX_HEAD))? else {
        return Ok(());
    };
    println!("received request: {line}");
    // A body left unread would turn the close into a reset, which may overtake the answer.
    io::copy(&mut reader.take(length), &mut io::sink())?;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        ANSWER.len()
    )?;
    if !line.starts_with("HEAD ") {
        stream.write_all(ANSWER.as_bytes())?;
    }
    stream.flush()
}

/// The request line and the length of the body, or nothing where the client left without a request (a probe of the port).
fn head(reader: &mut impl BufRead) -> io::Result<Option<(String, u64)>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the request does not end"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(Some((first.trim_end().to_owned(), length)));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_gives_its_first_line_and_the_length_of_the_body() {
        let read = |text: &str| head(&mut text.as_bytes());
        assert_eq!(read("GET / HTTP/1.0\r\n\r\n").unwrap(), Some(("GET / HTTP/1.0".to_owned(), 0)));
        let post = "POST /x HTTP/1.1\r\nHost: a:1\r\ncontent-length: 12\r\n\r\n";
        assert_eq!(read(post).unwrap(), Some(("POST /x HTTP/1.1".to_owned(), 12)));
        assert_eq!(read("").unwrap(), None);
        assert!(read("GET / HTTP/1.1\r\nHost: a\r\n").is_err());
        assert!(read("GET / HTTP/1.1\r\nContent-Length: many\r\n\r\n").is_err());
    }
}
