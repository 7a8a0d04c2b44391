//! What ONNX's operators do with the values that they are given.
//!
//! An allow-list: an operator or an input of it that is not named here counts as one whose values steer
//! memory accesses. The question is asked for memory that a client may be writing while the engine
//! reads it, so it is stricter than "is this a number or an index":
//!
//! * `TopK`, `NonZero`, `Compress`, `Unique` are not on the list although they take plain numbers. They
//!   sort, or count first and store afterwards, and rely on the values being the same both times.
//! * The float inputs that are coordinates or sizes (`Resize` scales, `RoiAlign` rois, `GridSample`
//!   grid, `NonMaxSuppression` boxes) are not either.
//! * `Cast`, `Add` and other operators that usually make a copy still count as passing their input on
//!   ([`Role::Passes`]). Engines take such nodes out of the graph where they do nothing: ONNX Runtime
//!   drops a `Cast` to the same type, folds chains of them, and drops `Add` of 0 and `Mul` by 1. What
//!   is behind the node then reads the client's memory itself.

/// What an operator does with the values of one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes other numbers of them, in memory of the engine's. Whatever comes after reads that.
    Computes,
    /// Hands them on, each by itself. An engine may make the output a view of the input, or leave the
    /// node out, so what reads the outputs must be looked at as if it read the input.
    Passes,
    /// Divides by them. See [`crate::uses`].
    Divides,
    /// May use them to decide where to read or write, or nobody has looked.
    Steers,
}

/// The role of input `position` of `operator` in ONNX's own domain, whatever the opset: no operator
/// below has changed the meaning of the positions that are named.
pub(crate) fn role(operator: &str, position: usize) -> Role {
    match (operator, position) {
        // Every output value is made of many input values.
        (
            "AveragePool"
            | "BatchNormalization"
            | "DeformConv"
            | "DynamicQuantizeLinear"
            | "GRU"
            | "GlobalAveragePool"
            | "GlobalLpPool"
            | "GlobalMaxPool"
            | "GridSample"
            | "GroupNormalization"
            | "InstanceNormalization"
            | "LRN"
            | "LSTM"
            | "LayerNormalization"
            | "LogSoftmax"
            | "LpNormalization"
            | "LpPool"
            | "MaxPool"
            | "MaxRoiPool"
            | "MeanVarianceNormalization"
            | "QLinearConv"
            | "RMSNormalization"
            | "RNN"
            | "RoiAlign"
            | "Softmax",
            0,
        ) => Role::Computes,
        ("ConvInteger" | "MatMul" | "MatMulInteger", 0 | 1) => Role::Computes,
        ("QLinearMatMul", 0 | 3) => Role::Computes,
        ("Conv" | "ConvTranspose" | "Gemm", 0..=2) => Role::Computes,
        ("Einsum", _) => Role::Computes,

        // The values are not looked at, or only choose between other values.
        ("Shape" | "Size" | "EyeLike", 0) | ("CastLike", 1) | ("Where", 0) => Role::Computes,
        // The result has the type of the base, so it can never be a view of the exponent.
        ("Pow", 1) => Role::Computes,

        ("Div" | "Mod", 1) => Role::Divides,

        // One value becomes one value.
        (
            "Abs" | "Acos" | "Acosh" | "Asin" | "Asinh" | "Atan" | "Atanh" | "BitwiseNot" | "Ceil"
            | "Celu" | "Clip" | "Cos" | "Cosh" | "Elu" | "Erf" | "Exp" | "Floor" | "Gelu"
            | "HardSigmoid" | "HardSwish" | "IsInf" | "IsNaN" | "LeakyRelu" | "Log" | "Mish"
            | "Neg" | "Not" | "Reciprocal" | "Relu" | "Round" | "Selu" | "Shrink" | "Sigmoid"
            | "Sign" | "Sin" | "Sinh" | "Softplus" | "Softsign" | "Sqrt" | "Swish" | "Tan" | "Tanh"
            | "ThresholdedRelu",
            0,
        ) => Role::Passes,
        (
            "Cast" | "CastLike" | "DequantizeLinear" | "Div" | "Mod" | "Pow" | "QuantizeLinear",
            0,
        ) => Role::Passes,
        (
            "Add" | "And" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" | "Equal" | "Greater"
            | "GreaterOrEqual" | "Less" | "LessOrEqual" | "Mul" | "Or" | "PRelu" | "Sub" | "Xor",
            0 | 1,
        ) => Role::Passes,
        ("Max" | "Mean" | "Min" | "Sum", _) | ("Where", 1 | 2) => Role::Passes,
        // These do nothing where there is nothing to reduce.
        (
            "CumSum" | "ReduceL1" | "ReduceL2" | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceMax"
            | "ReduceMean" | "ReduceMin" | "ReduceProd" | "ReduceSum" | "ReduceSumSquare",
            0,
        ) => Role::Passes,

        // Values go elsewhere as they are. Where to is said by the other inputs, which steer.
        (
            "DepthToSpace" | "Dropout" | "Expand" | "Flatten" | "Gather" | "GatherElements"
            | "GatherND" | "Identity" | "Pad" | "Reshape" | "Resize" | "ScatterElements"
            | "ScatterND" | "Slice" | "SpaceToDepth" | "Split" | "Squeeze" | "Tile" | "Transpose"
            | "Trilu" | "Unsqueeze" | "Upsample",
            0,
        ) => Role::Passes,
        ("Pad" | "ScatterElements" | "ScatterND", 2) | ("Concat", _) => Role::Passes,

        _ => Role::Steers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_memory_is_not_on_the_list() {
        for (operator, position) in [
            ("Gather", 1),
            ("GatherND", 1),
            ("GatherElements", 1),
            ("ScatterND", 1),
            ("ScatterElements", 1),
            ("Slice", 1),
            ("Slice", 4),
            ("Reshape", 1),
            ("Expand", 1),
            ("Tile", 1),
            ("TopK", 0),
            ("TopK", 1),
            ("OneHot", 0),
            ("MaxUnpool", 1),
            ("NonMaxSuppression", 0),
            ("NonZero", 0),
            ("Compress", 0),
            ("Compress", 1),
            ("Unique", 0),
            ("RoiAlign", 1),
            ("RoiAlign", 2),
            ("Resize", 2),
            ("GridSample", 1),
            ("Pad", 1),
            ("Range", 0),
            ("ConstantOfShape", 0),
            ("Loop", 2),
            ("If", 0),
            ("Scan", 0),
            ("LSTM", 4),
            ("ArgMax", 0),
            ("Bernoulli", 0),
            ("StringConcat", 0),
            ("", 0),
        ] {
            assert_eq!(
                role(operator, position),
                Role::Steers,
                "{operator} {position}"
            );
        }
    }
}
