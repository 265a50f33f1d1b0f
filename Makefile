# make demo     three nodes on this machine; BACKEND=vxlan|host-gw|udp  STORE=local|etcd  SHAPE=flat|routed
# make test     all tests; those that need root or network namespaces say so when they skip
# make test-nix the NixOS module, evaluated against the nixpkgs tree that NIXPKGS=PATH names; nothing is built
# make lint     formatting, lints, documentation, licences, shell, Python and Nix
# make model    the model check with many more schedules: SEEDS=50000
# make bench    one node among thousands of leases (docs/performance.md)  FLANNELD=PATH for the same of flanneld
# make bench-dataplane  the backends' throughput, delay and cost, side by side  FLANNELD=PATH for flanneld's too
# make soak     the udp backend under mixed load, with peers that come and go: SOAK_SECONDS=600
# make fuzz     every fuzz target for FUZZ_SECONDS=60; FUZZ_TARGETS="lease config" runs only these
# make install  everything at its place below DESTDIR; PREFIX=/usr  BINARY=target/release/flannel-rs (after make build)
# make uninstall        the same files gone; the config stays
# make deb      a Debian package in target/debian
# make vm-tests scenarios on machines that boot systemd (vm-tests/README.md); SCENARIOS="start kill"  MACHINE=nspawn|qemu  SUITE=bookworm|trixie
# make install-deps     the Debian packages that tests and demo need, if one is missing

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

STORE ?= local
MACHINE ?= nspawn
SUITE ?= bookworm
SEEDS ?= 50000
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo)
CARGO_DENY := 0.20.2
CARGO_FUZZ := 0.13.2
NIXFMT := 0.5.3
DEADNIX := 1.3.1
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600
FUZZ_TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

# protoc and its includes: the etcd client is generated from etcd's own .proto files
BUILD_PACKAGES := gcc libc6-dev protobuf-compiler libprotobuf-dev
# etcd-server starts a service of its own where systemd runs, so only those who ask for it get it
DEMO_PACKAGES := $(BUILD_PACKAGES) dbus iproute2 iperf3 iputils-ping $(if $(filter etcd,$(STORE)),etcd-server)
DEB_PACKAGES := $(BUILD_PACKAGES) dpkg-dev gzip
LINT_PACKAGES := $(BUILD_PACKAGES) mypy shellcheck
# to unpack Nix where it is not installed
NIX_PACKAGES := mmdebstrap
VM_PACKAGES := cpio e2fsprogs iproute2 mmdebstrap python3 qemu-system-x86 systemd-container
FUZZ_PACKAGES := $(BUILD_PACKAGES) g++
# ethtool for FLANNEL_RS_BENCH_WIRE=cut
BENCH_PACKAGES := $(BUILD_PACKAGES) ethtool etcd-client etcd-server iproute2 iputils-ping
# firewalld (16 packages, 1.2 MB to load, 7 MB on disk) starts and closes the host where systemd runs, so only those who ask
# for it get it: `make install-deps FIREWALLD=yes`
# of systemd the tests use tools that check files, it need not run; gdbus is of libglib2.0-bin
TEST_PACKAGES := $(DEMO_PACKAGES) dpkg-dev etcd-client etcd-server ethtool groff-base iptables libglib2.0-bin nftables procps systemd tcpdump tshark $(if $(FIREWALLD),firewalld)

SHELL_SCRIPTS = $(shell git grep -lE '^#!(/bin/|/usr/bin/env )(ba)?sh$$' -- ':!*.rs' ':!*.py')

# $(call install,PACKAGES): asks apt only when one is missing
define install
missing=; for package in $(sort $(1)); do \
	dpkg-query --show --showformat='$${Status}' "$$package" 2>/dev/null | grep -q ' installed$$' || missing+=" $$package"; \
done; \
if [[ -n $$missing ]]; then \
	if ! command -v apt-get >/dev/null; then echo "please install what Debian calls:$$missing" >&2; exit 1; fi; \
	$(SUDO) apt-get update -q; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $$missing; \
fi
endef

.PHONY: build demo test test-nix model bench bench-dataplane soak fuzz lint lint-nix install uninstall deb vm-tests install-deps

build:
	cargo build --release

demo:
	@$(call install,$(DEMO_PACKAGES))
	cargo build --release
	@STORE=$(STORE) examples/lab/demo.sh

test:
	cargo test

test-nix:
	nix/tests/run

# optimized, but with debug assertions and overflow checks as in `make test`
model:
	FLANNEL_RS_SEEDS=$(SEEDS) CARGO_PROFILE_TEST_OPT_LEVEL=2 cargo test --lib --target-dir target/model simulation -- --nocapture

bench:
	cargo bench --bench scale

bench-dataplane:
	@$(call install,$(BENCH_PACKAGES))
	cargo bench --bench dataplane

# as the model check: optimized, but with debug assertions and overflow checks
soak:
	SOAK_SECONDS=$(SOAK_SECONDS) CARGO_PROFILE_DEV_OPT_LEVEL=2 CARGO_PROFILE_TEST_OPT_LEVEL=2 \
		cargo test --test dataplane --target-dir target/model -- --nocapture soak

# libFuzzer keeps what it finds in the first folder; the corpus stays as it is
fuzz:
	@$(call install,$(FUZZ_PACKAGES))
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz --version $(CARGO_FUZZ)
	for target in $(FUZZ_TARGETS); do \
		mkdir -p fuzz/target/found/$$target; \
		cargo fuzz run --sanitizer none $$target fuzz/target/found/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -print_final_stats=1; \
	done

lint: lint-nix
	@$(call install,$(LINT_PACKAGES))
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny --version $(CARGO_DENY)
	cargo deny check --hide-inclusion-graph licenses bans sources
	shellcheck --severity=warning $(SHELL_SCRIPTS)
	cd vm-tests && mypy --strict debian cluster.py run
	cd nix/tests && MYPYPATH=../../vm-tests mypy --strict run

# nixfmt_rs formats as nixfmt does
lint-nix:
	@$(call install,$(NIX_PACKAGES))
	command -v nixfmt >/dev/null || cargo install --locked nixfmt_rs --version $(NIXFMT)
	command -v deadnix >/dev/null || cargo install --locked deadnix --version $(DEADNIX)
	nix/lint

include packaging/install.mk

vm-tests: deb
	@$(call install,$(VM_PACKAGES))
	$(SUDO) vm-tests/run --machine $(MACHINE) --suite $(SUITE) $(SCENARIOS)

install-deps:
	@$(call install,$(TEST_PACKAGES))
