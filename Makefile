# What a developer types. `make test` runs everything, on a bare machine with Rust: it starts Kafka, Postgres and Redis, which
# `deploy/engines` installs where it may, and stops them whatever happened. `deploy/schemathesis/run` and `deploy/s3/run`, which tests call, likewise install their
# tools. A test program that fails is run once more, and told of (`deploy/tests`).
.PHONY: run up down test soak lint docs fmt

run:
	cargo run --release

# The cluster as processes of their own on Kafka, Postgres and Redis, which `deploy/engines` starts: a dispatcher, three nodes, two writers. The
# last line says where it is.
up:
	cargo build --release -p dispatcher -p chat-node -p storage-writer -p cluster
	@engines=$$(deploy/engines up --optimize) && env $$engines target/release/cluster up

down:
	@if [ -x target/release/cluster ]; then target/release/cluster down; fi; deploy/engines down

test: lint docs
	@trap 'deploy/engines down' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; set -x; \
	deploy/engines up && \
	deploy/tests --workspace && \
	deploy/tests -p chat-node --features aws --lib attachments::objects && \
	deploy/tests -p standalone --features planted --test self_test

# Ten minutes of bad links and two hundred kills; `make test` has a minute and fifty.
soak:
	CHAT_TRIAL__SECONDS=600 cargo test -p standalone --test soak -- --nocapture
	CHAT_TRIAL__KILLS=200 cargo test -p standalone --test kills -- --nocapture

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p standalone --features aws,planted --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

fmt:
	cargo fmt --all
