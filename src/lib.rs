//! An overlay network for container hosts: each machine leases a subnet, and the subnets reach
//! each other over `host-gw`, `vxlan` or `udp`.

pub mod cluster;
pub mod config;
pub mod kernel;
pub mod mac;
pub mod plan;
pub mod proxy;
