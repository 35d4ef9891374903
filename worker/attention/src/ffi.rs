//! Between the node in C++ and the passes in Rust.

#![allow(unsafe_code, reason = "the node is in C++")]

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};

use tch::Tensor;

use crate::field::{Shape, Source, Strides, Target};
use crate::mask::Dropout;
use crate::pass::{Backward, Forward, Inputs};
use crate::scratch::{backward_len, forward_len};
use crate::{AttentionError, Rows};

/// Where a query, key or value lies, or its gradient.
#[repr(C)]
struct Part {
    data: *mut f32,
    row: i64,
    token: i64,
}

/// One pass, as `node.cpp` asks for it. Pointers are null where there is nothing.
#[repr(C)]
struct Call {
    rows: i64,
    tokens: i64,
    heads: i64,
    size: i64,
    query: Part,
    key: Part,
    value: Part,
    bias: *const f32,
    starts: *const i64,
    seed: u64,
    first_row: i64,
    drops: i64,
    output: *mut f32,
    sums: *mut f32,
    kept: *mut u64,
    gradient: *const f32,
    query_gradient: Part,
    key_gradient: Part,
    value_gradient: Part,
    scratch: *mut f32,
    scratch_each: i64,
    threads: i64,
}

/// As many fields as in `node.cpp`, which says the same.
const _: () = assert!(size_of::<Call>() == 34 * 8);

/// What the node calls.
#[repr(C)]
struct Functions {
    scratch: extern "C" fn(i64, i64, bool) -> i64,
    forward: unsafe extern "C" fn(*const Call),
    backward: unsafe extern "C" fn(*const Call),
}

#[repr(C)]
struct Options {
    heads: i64,
    width: i64,
    seed: u64,
    first_row: i64,
    drops: i64,
    functions: *const Functions,
}

static FUNCTIONS: Functions = Functions { scratch, forward, backward };

unsafe extern "C" {
    fn squad_attention_apply(
        query: *const c_void,
        key: *const c_void,
        value: *const c_void,
        bias: *const c_void,
        starts: *const c_void,
        options: *const Options,
        error: *mut *mut c_char,
    ) -> *mut c_void;
    fn free(memory: *mut c_void);
}

/// Calls the node. `tensors` are query, key and value, or one tensor of all.
pub(crate) fn apply(
    tensors: [Option<&Tensor>; 3],
    rows: Rows<'_>,
    heads: i64,
    dropout: Option<Dropout>,
) -> Result<Tensor, AttentionError> {
    let pointer = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null(), |tensor| tensor.as_ptr().cast());
    let (bias, starts, width) = match rows {
        Rows::Alike { bias } => (bias, None, 0),
        Rows::Packed { starts, width } => (None, Some(starts), width),
    };
    let options = Options {
        heads,
        width,
        seed: dropout.map_or(0, |dropout| dropout.seed),
        first_row: dropout.map_or(0, |dropout| dropout.first_row as i64),
        drops: dropout.map_or(0, |dropout| i64::from(dropout.drops)),
        functions: &raw const FUNCTIONS,
    };
    let [query, key, value] = tensors.map(pointer);
    let mut error = std::ptr::null_mut();
    // SAFETY: the pointers are of tensors that live, or null where the node takes that; it gives a new tensor or a text.
    unsafe {
        let (bias, starts) = (pointer(bias), pointer(starts));
        let made = squad_attention_apply(query, key, value, bias, starts, &raw const options, &raw mut error);
        if !made.is_null() {
            return Ok(Tensor::from_ptr(made.cast()));
        }
        if error.is_null() {
            return Err(AttentionError::Torch("not enough memory, not even to say for what".into()));
        }
        let text = CStr::from_ptr(error).to_string_lossy().into_owned();
        free(error.cast());
        Err(AttentionError::Torch(text))
    }
}

extern "C" fn scratch(tokens: i64, size: i64, backward: bool) -> i64 {
    let shape = Shape { rows: 1, tokens: tokens as usize, heads: 1, size: size as usize };
    (if backward { backward_len(shape) } else { forward_len(shape) }) as i64
}

/// How a tensor lies.
#[derive(Clone, Copy)]
struct Layout {
    strides: Strides,
    shape: Shape,
    /// Elements for each token of each head.
    width: usize,
}

impl Layout {
    fn extent(self) -> usize {
        self.strides.extent(self.shape, self.width)
    }
}

impl Call {
    fn shape(&self) -> Shape {
        let [rows, tokens, heads, size] = [self.rows, self.tokens, self.heads, self.size].map(|n| n as usize);
        Shape { rows, tokens, heads, size }
    }

    /// Where packed rows begin, and the last ends.
    ///
    /// # Safety
    /// What the call points to is there: numbers that rise from 0 to that of all tokens, none by more than `tokens`.
    unsafe fn starts(&self) -> Option<&[i64]> {
        // SAFETY: the caller's.
        (!self.starts.is_null())
            .then(|| unsafe { std::slice::from_raw_parts(self.starts, self.rows as usize + 1) })
    }

    /// A tensor of tokens, whose heads lie side by side. Packed, every token begins what may be a row.
    ///
    /// # Safety
    /// What the call points to is there.
    unsafe fn of_tokens(&self, row: i64, token: i64) -> Layout {
        let (shape, size) = (self.shape(), self.size as usize);
        let strides = |row: i64| Strides { row: row as usize, token: token as usize, head: size };
        // SAFETY: the caller's.
        match unsafe { self.starts() } {
            Some([.., all]) => Layout {
                strides: strides(token),
                shape: Shape { rows: 1, tokens: *all as usize, ..shape },
                width: size,
            },
            _ => Layout { strides: strides(row), shape, width: size },
        }
    }

    /// The context and its gradient.
    ///
    /// # Safety
    /// What the call points to is there.
    unsafe fn of_context(&self) -> Layout {
        let token = self.heads * self.size;
        // SAFETY: the caller's.
        unsafe { self.of_tokens(self.tokens * token, token) }
    }

    /// A tensor with `width` elements for each query of each head, packed or not with as many queries in every row.
    fn of_queries(&self, width: usize) -> Layout {
        let shape @ Shape { tokens, heads, .. } = self.shape();
        let strides = Strides { row: heads * tokens * width, token: width, head: tokens * width };
        Layout { strides, shape, width }
    }

    /// # Safety
    /// The part lies as it says, and is not written meanwhile.
    unsafe fn source(&self, part: &Part) -> Source<'_, f32> {
        // SAFETY: the caller's.
        unsafe { self.read(part.data.cast_const(), self.of_tokens(part.row, part.token)) }
    }

    /// # Safety
    /// `data` has the elements of the layout, and is not written meanwhile.
    unsafe fn read<T>(&self, data: *const T, layout: Layout) -> Source<'_, T> {
        // SAFETY: the caller's.
        let data = unsafe { std::slice::from_raw_parts(data, layout.extent()) };
        Source { data, strides: layout.strides }
    }

    /// # Safety
    /// `data` has the elements of the layout, which nobody else has.
    unsafe fn write<T>(&self, data: *mut T, layout: Layout) -> Target<'_, T> {
        // SAFETY: the caller's. Memory that nothing was written to yet holds some float or other.
        unsafe { Target::over(data, layout.extent(), layout.strides) }
    }

    /// # Safety
    /// What the call points to is there.
    unsafe fn inputs(&self) -> Inputs<'_> {
        let dropout = (self.drops > 0).then_some(Dropout {
            seed: self.seed,
            drops: self.drops as u16,
            first_row: self.first_row as usize,
        });
        // SAFETY: the caller's.
        unsafe {
            Inputs {
                shape: self.shape(),
                query: self.source(&self.query),
                key: self.source(&self.key),
                value: self.source(&self.value),
                starts: self.starts(),
                bias: (!self.bias.is_null())
                    .then(|| std::slice::from_raw_parts(self.bias, (self.rows * self.tokens) as usize)),
                dropout,
            }
        }
    }

    /// Runs each task once, on as many threads as libtorch has.
    ///
    /// # Safety
    /// The scratch is there.
    unsafe fn share_out(&self, task: impl Fn(usize, &mut [f32]) + Sync) {
        let (threads, each) = (self.threads as usize, self.scratch_each as usize);
        // SAFETY: the caller's.
        let scratch = unsafe { std::slice::from_raw_parts_mut(self.scratch, threads * each) };
        let (next, tasks) = (AtomicUsize::new(0), self.shape().tasks());
        let work = |scratch: &mut [f32]| {
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && index < tasks
            {
                task(index, scratch);
            }
        };
        let (own, others) = scratch.split_at_mut(each);
        std::thread::scope(|scope| {
            for scratch in others.chunks_exact_mut(each) {
                // Where no thread is to be had, the others do its work.
                drop(std::thread::Builder::new().spawn_scoped(scope, || work(scratch)));
            }
            work(own);
        });
    }
}

/// # Safety
/// The call is as `node.cpp` makes it: tensors of its shape, rows that begin where it has checked that they may, and nobody else has
/// the output, the sums, the bits and the scratch.
unsafe extern "C" fn forward(call: *const Call) {
    // SAFETY: the caller's.
    unsafe {
        let call = &*call;
        let words = call.shape().words();
        let pass = Forward {
            inputs: call.inputs(),
            output: call.write(call.output, call.of_context()),
            sums: call.write(call.sums, call.of_queries(2)),
            kept: (!call.kept.is_null()).then(|| call.write(call.kept, call.of_queries(words))),
        };
        call.share_out(|index, scratch| {
            // SAFETY: each task is run once.
            pass.run(index, scratch)
        });
    }
}

/// # Safety
/// The same; nobody else has the gradients of query, key and value, whose heads do not overlap.
unsafe extern "C" fn backward(call: *const Call) {
    // SAFETY: the caller's. Of one tensor of all three, each gradient's target begins at its own part and goes over elements of the
    // others', which none of its tasks takes.
    unsafe {
        let call = &*call;
        let words = call.shape().words();
        let target = |part: &Part| call.write(part.data, call.of_tokens(part.row, part.token));
        let pass = Backward {
            inputs: call.inputs(),
            output: call.read(call.output, call.of_context()),
            sums: call.read(call.sums, call.of_queries(2)),
            kept: (!call.kept.is_null()).then(|| call.read(call.kept.cast_const(), call.of_queries(words))),
            gradient: call.read(call.gradient, call.of_context()),
            query_gradient: target(&call.query_gradient),
            key_gradient: target(&call.key_gradient),
            value_gradient: target(&call.value_gradient),
        };
        call.share_out(|index, scratch| {
            // SAFETY: each task is run once.
            pass.run(index, scratch)
        });
    }
}
