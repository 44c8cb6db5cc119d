# What a developer types. `make test` runs everything, on a bare machine with Rust.
.PHONY: run test lint docs fmt

run:
	cargo run --release

test: lint docs
	cargo test --workspace
	cargo test -p standalone --features planted --test self_test

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo clippy -p standalone --features planted --all-targets -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

fmt:
	cargo fmt --all
