//! A TCP relay that loses answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Relays connections to one server. Dropping it stops accepting.
pub(crate) struct Relay {
    address: SocketAddr,
    trigger: Trigger,
    task: AbortHandle,
}

/// What a request must contain for all further answers on its connection to be lost.
type Trigger = Arc<Mutex<Option<Vec<u8>>>>;

impl Relay {
    /// Listens on a free port of loopback.
    pub(crate) async fn start(server: &str) -> Self {
        let server = server.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let trigger = Trigger::default();
        let wanted = Arc::clone(&trigger);
        let accept = async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let server = TcpStream::connect(&server).await.unwrap();
                let deaf = Arc::new(Mutex::new(false));
                let (client_read, client_write) = client.into_split();
                let (server_read, server_write) = server.into_split();
                let (wanted, heard) = (Arc::clone(&wanted), Arc::clone(&deaf));
                let requests = move |bytes: &[u8]| {
                    let wanted = wanted.lock().unwrap();
                    let found = wanted
                        .as_deref()
                        .is_some_and(|w| bytes.windows(w.len()).any(|part| part == w));
                    *heard.lock().unwrap() |= found;
                    true
                };
                tokio::spawn(copy(client_read, server_write, requests));
                tokio::spawn(copy(server_read, client_write, move |_| {
                    !*deaf.lock().unwrap()
                }));
            }
        };
        Self {
            address,
            trigger,
            task: tokio::spawn(accept).abort_handle(),
        }
    }

    /// The URL to use in place of the server's.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next request on that contains `text`, its connection brings no answers.
    pub(crate) fn swallow_answers_after(&self, text: &str) {
        *self.trigger.lock().unwrap() = Some(text.into());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, passes: impl Fn(&[u8]) -> bool) {
    let mut buffer = vec![0; 65536];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..length];
        if passes(bytes) && to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
