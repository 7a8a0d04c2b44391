//! Inputs of a request as writable arrays, which stay of use when the request moves.
#![allow(unsafe_code, reason = "arrays over inputs")]

use adjoin_client::{DataType, InputPlace, Request};
use numpy::PyUntypedArray;
use pyo3::prelude::*;
use smallvec::SmallVec;

use crate::array::{self, Place};
use crate::dtype;
use crate::fault::Fault;
use crate::plan::PlannedInput;

/// What an array over an input has as its base: keeps the place from everybody else.
#[pyclass(frozen, module = "adjoin._adjoin")]
#[derive(Debug)]
pub(crate) struct InputOwner {
    #[expect(dead_code, reason = "held for its bytes")]
    place: InputPlace,
}

/// An array that was given out.
#[derive(Debug)]
struct Shown {
    array: Py<PyUntypedArray>,
    place: InputPlace,
}

/// The arrays over the inputs of one request.
#[derive(Debug)]
pub(crate) struct Inputs {
    shown: SmallVec<[Option<Shown>; 2]>,
    /// That of the request when these were last compared with it.
    place_id: u64,
    /// Whether an array is elsewhere than its input.
    is_any_elsewhere: bool,
}

impl Inputs {
    pub(crate) fn new(request: &Request) -> Self {
        Self {
            shown: (0..request.input_count()).map(|_| None).collect(),
            place_id: request.place_id(),
            is_any_elsewhere: false,
        }
    }

    /// The array to be written for an input, if it was made before.
    ///
    /// While somebody still has the array of an earlier place, that is the one to be written.
    pub(crate) fn present<'py>(
        &mut self,
        py: Python<'py>,
        request: &mut Request,
        index: usize,
    ) -> Result<Result<Bound<'py, PyUntypedArray>, InputPlace>, Fault> {
        let place = request.input_place_at(index)?;
        self.compare(py, request);
        Ok(match &self.shown[index] {
            Some(shown) => Ok(shown.array.bind(py).clone()),
            None => Err(place),
        })
    }

    /// Remembers an array; the one to be used, should another thread have made one meanwhile.
    pub(crate) fn show<'py>(
        &mut self,
        index: usize,
        array: Bound<'py, PyUntypedArray>,
        place: InputPlace,
    ) -> Bound<'py, PyUntypedArray> {
        let py = array.py();
        let cell = &mut self.shown[index];
        let shown = cell.get_or_insert_with(|| Shown {
            array: array.unbind(),
            place,
        });
        // The request may have moved since.
        self.is_any_elsewhere = true;
        shown.array.bind(py).clone()
    }

    /// Before a run: brings what was written into arrays of earlier places to where the inputs are now.
    ///
    /// Not those that were lost: what the array shows then is not what was written.
    pub(crate) fn bring(&mut self, py: Python<'_>, request: &mut Request) -> Result<(), Fault> {
        if self.place_id == request.place_id() && !self.is_any_elsewhere {
            return Ok(());
        }
        for (index, shown) in self.shown.iter().enumerate() {
            if let Some(shown) = shown
                && !request.is_input_at(index, &shown.place)
                && !request.is_input_lost(index)
            {
                request.copy_input_from(index, &shown.place)?;
            }
        }
        self.compare(py, request);
        Ok(())
    }

    /// Forgets arrays of earlier places that nobody has any more.
    fn compare(&mut self, py: Python<'_>, request: &Request) {
        if self.place_id == request.place_id() && !self.is_any_elsewhere {
            return;
        }
        self.place_id = request.place_id();
        self.is_any_elsewhere = false;
        for (index, cell) in self.shown.iter_mut().enumerate() {
            let Some(shown) = cell.take_if(|shown| !request.is_input_at(index, &shown.place))
            else {
                continue;
            };
            if array::references(py, &shown.array) > 1 {
                self.is_any_elsewhere = true;
                *cell = Some(shown);
            }
        }
    }

    /// Forgets all arrays.
    pub(crate) fn clear(&mut self) {
        self.shown.iter_mut().for_each(|cell| *cell = None);
    }
}

/// An array over an input.
pub(crate) fn view<'py>(
    py: Python<'py>,
    input: &PlannedInput,
    place: &InputPlace,
) -> PyResult<Bound<'py, PyUntypedArray>> {
    debug_assert!(input.dtype != DataType::Bytes);
    let descr = dtype::descr(py, input.dtype)?;
    let owner = InputOwner {
        place: place.clone(),
    };
    let owner = Bound::new(py, owner)?.into_any();
    let class = py.get_type::<PyUntypedArray>();
    let place = Place {
        start: place.start(),
        shape: &input.shape,
        strides: None,
        is_writable: true,
    };
    // SAFETY: the place has the bytes that type and shape make, aligned to 64, and the owner keeps it. A user who
    // writes while the server reads garbles their own request; the documentation says so.
    unsafe { array::view(&place, &class, descr, owner) }
}
