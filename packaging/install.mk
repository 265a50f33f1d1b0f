# Where things lie on the host. The Makefile includes it.

PREFIX ?= /usr
SYSCONFDIR ?= /etc
BINARY ?= target/release/flannel-rs
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
# Of the host that is installed for: systemd's newer features are used where it has them. Who installs
# for another host says which, or 0 to leave that to later.
SYSTEMD_VERSION ?= $(or $(shell systemctl --version 2>/dev/null | awk 'NR == 1 {print $$2}'),0)
# Debian's zsh looks into vendor-completions
ZSH_COMPLETIONS ?= $(SHARE)/zsh/site-functions

LIB := $(PREFIX)/lib
SHARE := $(PREFIX)/share
DOC := $(SHARE)/doc/flannel-rs
UNITS := $(LIB)/systemd/system
DATA := $(SHARE)/flannel-rs

# $(call lay,MODE,FILES,FOLDER)
lay = $(if $(strip $(2)),install -d $(DESTDIR)$(3) && install -m$(1) $(2) $(DESTDIR)$(3)/)

install:
	@test -x $(BINARY) || { echo "no $(BINARY): run \`make build\` first, or name another with BINARY=" >&2; exit 1; }
	$(call lay,755,$(BINARY),$(PREFIX)/bin)
	$(call lay,644,systemd/system/flannel-rs.service,$(UNITS))
	for drop_in in systemd/since-*/*/*.conf; do install -Dm644 $$drop_in $(DESTDIR)$(DATA)/$${drop_in#systemd/}; done
	packaging/drop-ins "$(SYSTEMD_VERSION)" "$(DATA)" "$(UNITS)" "$(DESTDIR)"
	test $(PREFIX) = /usr || sed -i 's,/usr/\(bin\|share/doc\)/flannel-rs,$(PREFIX)/\1/flannel-rs,' \
		$(DESTDIR)$(UNITS)/flannel-rs.service $(DESTDIR)$(DATA)/since-*/flannel-rs.service.d/*.conf
	$(call lay,644,$(wildcard systemd/system-preset/*),$(LIB)/systemd/system-preset)
	$(call lay,644,$(wildcard systemd/sysusers.d/*),$(LIB)/sysusers.d)
	$(call lay,644,$(wildcard systemd/sysctl.d/*),$(LIB)/sysctl.d)
	$(call lay,644,$(wildcard systemd/modules-load.d/*),$(LIB)/modules-load.d)
	$(call lay,644,$(wildcard systemd/network/*),$(LIB)/systemd/network)
	$(call lay,644,$(wildcard systemd/networkd.conf.d/*),$(LIB)/systemd/networkd.conf.d)
	$(call lay,644,$(wildcard systemd/catalog/*.catalog),$(LIB)/systemd/catalog)
	$(call lay,644,$(wildcard systemd/NetworkManager/conf.d/*),$(LIB)/NetworkManager/conf.d)
	$(call lay,644,$(wildcard systemd/dbus-1/system.d/*),$(SHARE)/dbus-1/system.d)
	$(call lay,644,$(wildcard systemd/dbus-1/system-services/*),$(SHARE)/dbus-1/system-services)
	$(call lay,644,$(wildcard systemd/dbus-1/interfaces/*),$(SHARE)/dbus-1/interfaces)
	$(call lay,644,$(wildcard systemd/polkit-1/actions/*),$(SHARE)/polkit-1/actions)
	$(call lay,644,$(wildcard systemd/polkit-1/rules.d/*),$(SHARE)/polkit-1/rules.d)
	$(call lay,644,$(wildcard systemd/dhcpcd/*),$(DATA)/dhcpcd)
	$(call lay,644,$(wildcard systemd/docker.service.d/*),$(DATA)/docker.service.d)
	$(call lay,644,$(wildcard systemd/iproute2/rt_protos.d/*),$(SYSCONFDIR)/iproute2/rt_protos.d)
	test -e $(DESTDIR)$(SYSCONFDIR)/flannel-rs/config.toml || install -Dm644 packaging/config.toml $(DESTDIR)$(SYSCONFDIR)/flannel-rs/config.toml
	$(call lay,644,README.md CHANGELOG.md $(wildcard docs/*),$(DOC))
	$(call lay,644,$(wildcard examples/*.toml examples/*.conf),$(DOC)/examples)
	umask 022; \
	install -d $(DESTDIR)$(SHARE)/man/man1; \
	$(BINARY) man $(DESTDIR)$(SHARE)/man/man1; \
	completion() { install -d "$(DESTDIR)$$2"; $(BINARY) completions "$$1" > "$(DESTDIR)$$2/$$3"; }; \
	completion bash $(SHARE)/bash-completion/completions flannel-rs; \
	completion fish $(SHARE)/fish/vendor_completions.d flannel-rs.fish; \
	completion zsh $(ZSH_COMPLETIONS) _flannel-rs

# What `install` would lay out here is what goes; only folders of our own name go with it.
uninstall:
	image=$$(mktemp -d); trap 'rm -r "$$image"' EXIT; \
	$(MAKE) --no-print-directory -s install DESTDIR="$$image"; \
	cd "$$image"; \
	find . ! -type d ! -path .$(SYSCONFDIR)/flannel-rs/config.toml -printf '%P\0' | xargs -0 -I{} rm -f "$(DESTDIR)/{}"; \
	find . -depth -type d -path '*/flannel-rs*' -printf '%P\0' | \
		xargs -0 -I{} rmdir --ignore-fail-on-non-empty "$(DESTDIR)/{}"

# a BINARY that is named is taken as it is
deb: $(if $(filter file,$(origin BINARY)),build)
	@$(call install,$(DEB_PACKAGES))
	packaging/debian/build $(BINARY) $(VERSION) target/debian
