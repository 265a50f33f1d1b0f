//! The data plane of the udp backend: one IP packet in each UDP datagram, through a TUN device.
//!
//! Runs on its own operating-system threads with blocking batches; the rest of the service sees
//! only [`Proxy`]. Wire-compatible with flanneld (flannel facts §5). Knows nothing of leases.
