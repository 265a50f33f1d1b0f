//! Round trips: one small datagram at a time, and its echo.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use crate::contestant::Contestant;
use crate::flood::pair;
use crate::window::Window;

/// Payload in bytes.
const SIZE: usize = 64;

/// Times of round trips, ascending.
#[derive(Debug, Clone)]
pub(crate) struct RoundTrips(Vec<Duration>);

impl RoundTrips {
    /// Makes round trips until the window is over, one after the other. One that gets lost counts
    /// with the time that it was waited for.
    ///
    /// # Panics
    /// If an echo brings other data than was sent.
    pub(crate) fn run(contestant: &Contestant, window: Window) -> Self {
        let (client, server) = pair(contestant);
        thread::scope(|scope| {
            scope.spawn(|| echo(&server, window));
            let mut times = Vec::new();
            let mut number = 0_u64;
            while !window.is_over(Instant::now()) {
                let begun = Instant::now();
                let took = round_trip(&client, number);
                if window.holds(begun) {
                    times.push(took);
                }
                number += 1;
            }
            times.sort_unstable();
            Self(times)
        })
    }

    /// In microseconds: as long as this share of the round trips took at most.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a length"
        )]
        let index = (share * self.0.len() as f64) as usize;
        let last = self.0.len().checked_sub(1).expect("round trips");
        self.0[index.min(last)].as_secs_f64() * 1e6
    }
}

fn round_trip(client: &UdpSocket, number: u64) -> Duration {
    let mut datagram = [0x5a; SIZE];
    datagram[..8].copy_from_slice(&number.to_be_bytes());
    let begun = Instant::now();
    client.send(&datagram).expect("a datagram can be sent");
    let mut answer = [0; SIZE + 1];
    loop {
        let length = match client.recv(&mut answer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return begun.elapsed(),
            Err(error) => panic!("no echo: {error}"),
        };
        let took = begun.elapsed();
        let echoed = &answer[..length];
        assert_eq!(echoed.get(8..), datagram.get(8..), "wrong data in an echo");
        // an earlier one that had been given up for lost may still come
        if echoed[..8] == datagram[..8] {
            return took;
        }
    }
}

fn echo(server: &UdpSocket, window: Window) {
    let mut datagram = [0; SIZE + 1];
    while !window.is_over(Instant::now()) {
        match server.recv(&mut datagram) {
            Ok(length) => drop(server.send(&datagram[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("cannot echo: {error}"),
        }
    }
}
