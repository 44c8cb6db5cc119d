//! Notifications (NO-1 to NO-3), against a real store, a cache, and servers on this machine.

mod hook;
mod kills;
mod meanwhile;
mod sending;
mod silent;
mod stage;
mod who;
