//! What a room has put down to be said, for those who write it.

use super::{Effects, Room};
use crate::hub::fanout::{Fanout, Saying};

impl Room {
    /// What is to be said, for the caller to write; none when there is nothing, or somebody does already.
    pub(crate) fn begin_fanout(&self) -> Option<Fanout> {
        let mut state = self.state.lock();
        let fanout = state.say.begin();
        if fanout.is_some() {
            state.taken = state.have.unwrap_or(0);
        }
        fanout
    }

    /// Everything was said: what has come meanwhile. Nothing ends it.
    pub(in crate::hub) fn more_to_say(&self) -> (Saying, Effects) {
        let mut effects = Effects::default();
        let mut state = self.state.lock();
        state.said = state.taken;
        let mut more = state.say.more();
        // Before what waited is put behind it: that is not taken yet, and must not count as said with this.
        state.taken = state.have.unwrap_or(0);
        // Events may have had to wait until others were written.
        state.advance(&mut effects);
        state.mind_the_gap(&mut effects);
        if more.is_empty() {
            more = state.say.more();
            state.taken = state.have.unwrap_or(0);
        }
        drop(state);
        (more, effects)
    }
}
