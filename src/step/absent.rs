//! Kinds that this build was made without: they are known, so that a configuration with them gets a clear error.

use super::{Context, End, Kind};
use crate::{
    keys::{Error, Fields, Key, Node, Read},
    problem::Scope,
};

pub mod save {
    pub type Save = super::Absent;
}

pub mod restore {
    pub type Restore = super::Absent;
}

/// A kind that does nothing but say that it is not here.
#[derive(Debug)]
pub struct Absent;

/// Whatever was typed for it.
#[derive(Debug, Default)]
pub struct Typed;

impl Read for Typed {
    fn read(_: Node<'_>) -> Result<Self, Error> {
        Ok(Self)
    }
}

impl Fields for Typed {
    fn keys(&self) -> &'static [Key] {
        &[]
    }

    fn set(&mut self, _: usize, _: Node<'_>) -> Result<(), Error> {
        Ok(())
    }
}

impl Kind for Absent {
    type Typed = Typed;

    fn mean(_: Typed, scope: &mut Scope<'_>) -> Option<Self> {
        scope.problem("", "this build has no state", "use the full boathook".to_owned());
        None
    }

    async fn run(&self, _: &Context) -> End {
        End::FailedForGood("this build has no state".into())
    }
}
