//! Our kernels in a context.

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUfunction, CUmodule};

use super::context::Context;
use super::hold::Hold;
use crate::device::Device;
use crate::error::CudaError;

/// PTX of all kernels: the driver compiles it for whatever device it finds. `kernels/build.sh` makes it.
const PTX: &str = include_str!("../../kernels/adjoin.ptx");

/// A loaded module and its functions.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    raw: CUmodule,
    copy_rows: CUfunction,
    normalize_f32: CUfunction,
    normalize_f16: CUfunction,
    normalize_bf16: CUfunction,
}

// SAFETY: a module belongs to no thread.
unsafe impl Send for Module {}
// SAFETY: functions may be launched from several threads.
unsafe impl Sync for Module {}

/// Which kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kernel {
    CopyRows,
    NormalizeF32,
    NormalizeF16,
    NormalizeBf16,
}

impl Kernel {
    const fn symbol(self) -> &'static CStr {
        match self {
            Self::CopyRows => c"adjoin_copy_rows",
            Self::NormalizeF32 => c"adjoin_normalize_f32",
            Self::NormalizeF16 => c"adjoin_normalize_f16",
            Self::NormalizeBf16 => c"adjoin_normalize_bf16",
        }
    }
}

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub(super) blocks: [u32; 3],
    pub(super) threads: u32,
}

impl Module {
    /// Loads the kernels; the driver compiles them, which takes some milliseconds the first time on a machine.
    pub(crate) fn load(device: &Device) -> Result<Arc<Self>, CudaError> {
        let image = CString::new(PTX).map_err(|error| CudaError::System {
            what: "kernels",
            reason: error.to_string(),
        })?;
        let context = device.context();
        let mut raw: CUmodule = ptr::null_mut();
        let entered = context.enter()?;
        // SAFETY: the image is PTX that ends with a zero; the module goes where it is told.
        let status =
            unsafe { (entered.table().cuModuleLoadData)(&raw mut raw, image.as_ptr().cast()) };
        entered.check("cuModuleLoadData", status)?;
        drop(entered);
        let mut module = Self {
            context,
            raw,
            copy_rows: ptr::null_mut(),
            normalize_f32: ptr::null_mut(),
            normalize_f16: ptr::null_mut(),
            normalize_bf16: ptr::null_mut(),
        };
        module.copy_rows = module.function(Kernel::CopyRows)?;
        module.normalize_f32 = module.function(Kernel::NormalizeF32)?;
        module.normalize_f16 = module.function(Kernel::NormalizeF16)?;
        module.normalize_bf16 = module.function(Kernel::NormalizeBf16)?;
        Ok(Arc::new(module))
    }

    fn function(&self, kernel: Kernel) -> Result<CUfunction, CudaError> {
        let mut function: CUfunction = ptr::null_mut();
        let entered = self.context.enter()?;
        // SAFETY: the module is alive, the name ends with a zero, and the function goes where it is told.
        let status = unsafe {
            (entered.table().cuModuleGetFunction)(
                &raw mut function,
                self.raw,
                kernel.symbol().as_ptr(),
            )
        };
        entered.check("cuModuleGetFunction", status)?;
        Ok(function)
    }

    pub(crate) fn generation(&self) -> u64 {
        self.context.generation()
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    pub(super) fn get(&self, kernel: Kernel) -> CUfunction {
        match kernel {
            Kernel::CopyRows => self.copy_rows,
            Kernel::NormalizeF32 => self.normalize_f32,
            Kernel::NormalizeF16 => self.normalize_f16,
            Kernel::NormalizeBf16 => self.normalize_bf16,
        }
    }

    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        Hold::Module(self.clone())
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(entered) = self.context.enter() {
            // SAFETY: the module is this value's own; each launch holds it until its event.
            let _ = unsafe { (entered.table().cuModuleUnload)(self.raw) };
        }
    }
}

/// Addresses of a kernel's arguments, as a launch takes them. The arguments are copied by the launch.
pub(super) fn argument<T>(value: &mut T) -> *mut c_void {
    ptr::from_mut(value).cast()
}
