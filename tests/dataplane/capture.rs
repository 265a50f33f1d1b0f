//! What passes an interface, as tcpdump records it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::support::process::{end, inside, pid, until};

/// A capture that runs.
pub(crate) struct Capture {
    tcpdump: Option<Child>,
    file: PathBuf,
    words: PathBuf,
}

impl Capture {
    /// Starts and waits until it listens. `name` is that of a file in `folder`, `what` a device
    /// and a filter.
    pub(crate) fn start(namespace: &str, folder: &Path, name: &str, what: [&str; 2]) -> Self {
        let [device, filter] = what;
        let (file, words) = (folder.join(name), folder.join(format!("{name}.words")));
        let mut command = inside(namespace, "tcpdump");
        command.args([
            "-i", device, "-n", "-s", "2000", "-B", "32768", "-Z", "root",
        ]);
        command.args(["--immediate-mode", "-U", "-w"]).arg(&file);
        command.arg(filter);
        command.stderr(File::create(&words).unwrap());
        let capture = Self {
            tcpdump: Some(command.spawn().unwrap()),
            file,
            words,
        };
        until("tcpdump listens", || {
            capture.words().contains("listening on")
        });
        capture
    }

    fn words(&self) -> String {
        fs::read_to_string(&self.words).unwrap()
    }

    /// How many bytes it has recorded.
    pub(crate) fn size(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |file| file.len())
    }

    /// Ends it, once all that was under way has passed, and answers the file.
    pub(crate) fn finish(mut self) -> PathBuf {
        thread::sleep(Duration::from_millis(300));
        let mut tcpdump = self.tcpdump.take().unwrap();
        kill(pid(&tcpdump), Signal::SIGINT).unwrap();
        assert!(tcpdump.wait().unwrap().success(), "{}", self.words());
        let words = self.words();
        assert!(words.contains("\n0 packets dropped by kernel"), "{words}");
        self.file.clone()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        end(self.tcpdump.take());
    }
}

/// The IPv4 packets of a capture of an Ethernet device, in order, without what pads a frame.
pub(crate) fn packets(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).unwrap();
    // pcap-savefile(5): a header of 24 bytes, then 16 bytes before each frame
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_ne_bytes(), "no pcap file");
    let mut rest = &bytes[24..];
    let mut packets = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(16) {
        let length = u32::from_ne_bytes(head[8..12].try_into().unwrap()) as usize;
        let (frame, after) = after.split_at(length);
        if frame[12..14] == [8, 0] {
            let packet = &frame[14..];
            // a bundle that no card has cut is longer than what is recorded of it
            let length = total_length(packet).min(packet.len());
            packets.push(packet[..length].to_vec());
        }
        rest = after;
    }
    packets
}

/// The length that an IPv4 header tells.
fn total_length(packet: &[u8]) -> usize {
    usize::from(u16::from_be_bytes([packet[2], packet[3]]))
}
