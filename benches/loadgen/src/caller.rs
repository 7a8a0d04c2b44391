//! A client, whatever it speaks.

use adjoin_cli_kit::Failure;

use crate::arrivals::Arrivals;
use crate::job::Phase;
use crate::lanes::Answer;
use crate::meter::Meter;

/// Something that makes requests again and again.
pub(crate) trait Caller {
    /// One request with these inputs, and its outputs. Inputs that are not written anew stay so.
    fn ask(&mut self, contents: &[Vec<u8>]) -> Result<Vec<Answer>, Failure>;

    /// A phase in which each request follows an answer; nothing is under way afterwards.
    fn closed(&mut self, meter: Meter) -> Result<Phase, Failure>;

    /// A phase in which requests are meant to start at given moments; nothing is under way afterwards.
    fn open(&mut self, arrivals: Arrivals, meter: Meter) -> Result<Phase, Failure>;

    /// Gives back what the server holds for this client.
    fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}
