"""Run an ONNX graph with torch, operator by operator.

A second opinion on the exported files that needs no ONNX runtime: Debian 12 has none for Python.
It knows the operators that torch's exporter writes for this model and refuses any other.
"""

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

_TYPES = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.INT64: torch.int64}


def _tensor(proto):
    return torch.tensor(numpy_helper.to_array(proto))


def _attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _conv(a, x, weight, bias):
    top, left, bottom, right = a["pads"]
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, a["strides"], 0, a["dilations"], a["group"])


def _gemm(a, x, weight, bias):
    if a.get("transA"):
        x = x.T
    if a.get("transB"):
        weight = weight.T
    return a.get("alpha", 1.0) * (x @ weight) + a.get("beta", 1.0) * bias


def _gather(a, x, index):
    axis = a.get("axis", 0) % x.ndim
    rows = x.index_select(axis, index.flatten())
    return rows.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1:]])


def _reshape(a, x, shape):
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def _resize(a, x, roi, scales, sizes=None):
    if (a["mode"], a["nearest_mode"]) != (b"nearest", b"floor"):
        raise NotImplementedError(f"Resize {a['mode']}")
    factors = scales.tolist() if sizes is None else [n / m for n, m in zip(sizes, x.shape)]
    return F.interpolate(x, scale_factor=factors[2:], mode="nearest")


def _slice(a, x, starts, ends, axes, steps=None):
    for i, (start, end, axis) in enumerate(zip(starts.tolist(), ends.tolist(), axes.tolist())):
        step = 1 if steps is None else steps[i].item()
        x = x[(slice(None),) * (axis % x.ndim) + (slice(start, end, step),)]
    return x


def _unsqueeze(a, x, axes):
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


_OPERATORS = {
    "Add": lambda a, x, y: x + y,
    "Cast": lambda a, x: x.to(_TYPES[a["to"]]),
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Constant": lambda a: _tensor(a["value"]),
    "Conv": _conv,
    "Cos": lambda a, x: x.cos(),
    "Div": lambda a, x, y: x / y if x.is_floating_point() else x // y,
    "Erf": lambda a, x: x.erf(),
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": lambda a, x: x,
    "InstanceNormalization":
        lambda a, x, scale, shift: F.instance_norm(x, weight=scale, bias=shift, eps=a["epsilon"]),
    "MatMul": lambda a, x, y: x @ y,
    "Mul": lambda a, x, y: x * y,
    "Pow": lambda a, x, y: x**y,
    "ReduceMean": lambda a, x: x.mean(a["axes"], keepdim=bool(a.get("keepdims", 1))),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": lambda a, x: torch.tensor(x.shape),
    "Sigmoid": lambda a, x: x.sigmoid(),
    "Sin": lambda a, x: x.sin(),
    "Slice": _slice,
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Sqrt": lambda a, x: x.sqrt(),
    "Sub": lambda a, x, y: x - y,
    "Transpose": lambda a, x: x.permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
}


class OnnxModel:
    """A graph of one output, called with its inputs as tensors, in the file's order."""

    def __init__(self, path):
        """Load and check `path`; raises NotImplementedError for an operator unknown here."""
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
        self.weights = {w.name: _tensor(w) for w in model.graph.initializer}
        self.inputs = [_name_and_shape(i) for i in model.graph.input if i.name not in self.weights]
        self.outputs = [_name_and_shape(o) for o in model.graph.output]
        self.nodes = []  # (operator, attributes, inputs, output, values not needed any more)
        kept = {name for name, _ in self.outputs} | self.weights.keys()
        for n in reversed(model.graph.node):
            dead = set(n.input) - kept
            kept |= dead
            self.nodes.insert(0, (n.op_type, _attributes(n), list(n.input), n.output[0], dead))
        unknown = {op for op, *_ in self.nodes} - _OPERATORS.keys()
        if unknown:
            raise NotImplementedError(f"{path}: operators {sorted(unknown)}")

    @torch.no_grad()
    def __call__(self, *inputs):
        """Return the output for `inputs`, tensors of the shapes in `self.inputs`."""
        values = dict(self.weights)
        values.update(zip((name for name, _ in self.inputs), inputs))
        for op, attributes, names, output, dead in self.nodes:
            arguments = [values[name] if name else None for name in names]
            values[output] = _OPERATORS[op](attributes, *arguments)
            for name in dead:
                values.pop(name, None)
        return values[self.outputs[0][0]]


def _name_and_shape(value):
    dims = value.type.tensor_type.shape.dim
    return value.name, [d.dim_param or d.dim_value for d in dims]
