//! The places from which checkers are asked: of the server, of the role whose text it is, of the role that asks. They
//! limit the number of checkers, however long these take to end.

use super::Question;
use crate::pg::lock::Lock;

/// A place. It is taken while somebody asks from it, and while the checker that was asked runs: code that does not end
/// when told to keeps its places.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    kind: u16,
    role: u32,
    number: u32,
}

/// The party a place belongs to.
#[derive(Debug, Clone, Copy)]
pub enum Of {
    /// The server.
    Server,
    /// The role whose text is looked at.
    Owner(u32),
    /// The role that is logged in where the question was asked.
    Asker(u32),
}

impl Place {
    /// Returns the place with this number.
    pub fn new(of: Of, number: u32) -> Place {
        let (kind, role) = match of {
            Of::Server => (0, 0),
            Of::Owner(role) => (1, role),
            Of::Asker(role) => (2, role),
        };
        Place { kind, role, number }
    }

    /// Returns the three places of a question, as [`take`](Place::take) took them.
    pub fn of_question<T>(question: &Question<T>, owner: u32) -> [Place; 3] {
        let [of_owner, of_asker, of_server] = question.places;
        [
            Place::new(Of::Owner(owner), of_owner),
            Place::new(Of::Asker(question.asks), of_asker),
            Place::new(Of::Server, of_server),
        ]
    }

    /// The place's number among those of the same role.
    pub fn number(self) -> u32 {
        self.number
    }

    /// Takes the place for the asking side, until the transaction ends or it is left; false if it is taken.
    pub fn take(self) -> bool {
        if !self.asked_from().try_for_transaction() {
            return false;
        }
        let free = self.worked_at().try_for_transaction();
        if free {
            self.worked_at().release_transaction();
        } else {
            self.leave();
        }
        free
    }

    /// Gives the place back before the transaction ends.
    pub fn leave(self) {
        self.asked_from().release_transaction();
    }

    /// Takes the place for the checker, until its transaction ends; false if another checker has it.
    pub fn work(self) -> bool {
        self.worked_at().try_for_transaction()
    }

    fn asked_from(self) -> Lock {
        Lock::Asker(self.kind, self.role, self.number)
    }

    fn worked_at(self) -> Lock {
        Lock::Checker(self.kind, self.role, self.number)
    }
}
