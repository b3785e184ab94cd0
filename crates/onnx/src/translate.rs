//! From the calls of an evaluation to nodes.

use std::collections::{HashMap, HashSet};

use defrost_graph::{Graph, Instruction, Marking, NodeId, Origin, ParamStore, Value};
use defrost_plan::{Plan, Purpose};
use defrost_tensor::{Activation, Call, HostTensor, PixelScale, PoolDesc, Shape4, call};

use crate::proto::{self, Attribute, Extent, data_type};
use crate::{Element, Error, INPUT, Input, Layout, Options, Output, Result, tensor};

/// The graph of a model file.
pub(crate) fn translate(graph: &Graph, params: &ParamStore, options: &Options) -> Result<proto::Graph> {
    let until = graph.output();
    let mut passes = defrost_plan::Options::default();
    passes.fold = options.fold;
    let plan = Plan::new(graph, &Marking::frozen(graph), 1, Purpose::Infer { until }, passes)?;

    let mut writer = Writer::new(graph, params, &plan);
    for instruction in &plan.setup {
        writer.fold(instruction)?;
    }
    let input = writer.input(&options.input)?;
    for instruction in plan.calls() {
        writer.call(instruction)?;
    }
    let logits = writer.read(plan.output, Rank::Vector)?;
    writer.rename(&logits, Output::Logits.name());
    let name = options.output.name();
    let steps = match &options.output {
        Output::Logits => Vec::new(),
        Output::Softmax => vec![Step::new("Softmax", Vec::new(), vec![Attribute::int("axis", 1)])],
        Output::Sigmoid => vec![Step::new("Sigmoid", Vec::new(), Vec::new())],
        Output::Values { factor, summand } => writer.values(factor, summand)?,
    };
    if !steps.is_empty() {
        // Kept free for this.
        writer.taken.remove(name);
        writer.chain(name, vec![Output::Logits.name().into()], steps);
    }
    Ok(proto::Graph {
        node: writer.nodes,
        name: graph.name().into(),
        initializer: writer.initializers,
        input: vec![input],
        output: vec![value_info(name, data_type::FLOAT, &[graph.classes()])],
    })
}

/// How many axes a value has in the file.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Rank {
    /// `[N, c, h, w]`.
    Image,
    /// `[N, c]`.
    Vector,
}

/// An operator on what came before it.
struct Step {
    op: &'static str,
    more: Vec<String>,
    attributes: Vec<Attribute>,
}

impl Step {
    fn new(op: &'static str, more: Vec<String>, attributes: Vec<Attribute>) -> Self {
        Self { op, more, attributes }
    }
}

/// A piece of a concatenation.
struct Part {
    to: usize,
    channels: usize,
    x: Value,
}

struct Writer<'a> {
    graph: &'a Graph,
    params: &'a ParamStore,
    plan: &'a Plan,
    nodes: Vec<proto::Node>,
    initializers: Vec<proto::Tensor>,
    /// The name of each activation that is there.
    names: HashMap<(Value, Rank), String>,
    taken: HashSet<String>,
    /// Constants that are there already.
    constants: HashSet<String>,
    folded: HashMap<Value, HostTensor>,
    parts: HashMap<Value, Vec<Part>>,
}

impl<'a> Writer<'a> {
    fn new(graph: &'a Graph, params: &'a ParamStore, plan: &'a Plan) -> Self {
        let reserved = [INPUT, Output::Logits.name(), Output::Softmax.name(), "values"];
        Self {
            graph,
            params,
            plan,
            nodes: Vec::new(),
            initializers: Vec::new(),
            names: HashMap::new(),
            taken: reserved.map(Into::into).into(),
            constants: HashSet::new(),
            folded: HashMap::new(),
            parts: HashMap::new(),
        }
    }

    /// Computes the weights of a folded normalisation.
    fn fold(&mut self, instruction: &Instruction) -> Result<()> {
        let Call::FoldNorm(fold) = instruction.call else {
            return Err(self.unsupported(instruction, ""));
        };
        for value in instruction.call.reads() {
            self.host(value)?;
        }
        let host = |value: Value| match self.plan.values.info(value).origin {
            Origin::Param(id) => self.params.get(&self.graph.param(id).name),
            _ => None,
        };
        let resolved = fold.map(&mut |value| host(value).expect("looked at above"), &mut |value| value);
        let (weight, bias) = tensor::fold(&resolved);
        self.folded.extend([(resolved.folded_weight, weight), (resolved.folded_bias, bias)]);
        Ok(())
    }

    /// The graph's input, and what prepares it.
    fn input(&mut self, input: &Input) -> Result<proto::ValueInfo> {
        let shape = self.graph.input_shape();
        let value = self.plan.values.iter().find(|(_, info)| info.origin == Origin::Input);
        let value = value.expect("every plan has an input").0;
        let (info, name) = match input {
            Input::Prepared => {
                (value_info(INPUT, data_type::FLOAT, &[shape.c, shape.h, shape.w]), INPUT.into())
            }
            Input::Pixels { scale, layout, element } => {
                let dims = match layout {
                    Layout::Nhwc => [shape.h, shape.w, shape.c],
                    Layout::Nchw => [shape.c, shape.h, shape.w],
                };
                let kind = match element {
                    Element::U8 => data_type::UINT8,
                    Element::F32 => data_type::FLOAT,
                };
                (value_info(INPUT, kind, &dims), self.pixels(scale, *layout, *element, shape)?)
            }
        };
        self.names.insert((value, Rank::Image), name);
        Ok(info)
    }

    /// Outputs to numbers in the data's units.
    fn values(&mut self, factor: &[f32], summand: &[f32]) -> Result<Vec<Step>> {
        let columns = self.graph.classes();
        let constants = [("Mul", "values.factor", factor), ("Add", "values.summand", summand)];
        let step = |(op, name, values): (&'static str, &str, &[f32])| {
            let got = values.len();
            let values = HostTensor::new([1, columns], values.to_vec());
            let values = values.map_err(|_| Error::Columns { got, want: columns })?;
            Ok(Step::new(op, vec![self.constant(tensor::floats(name.into(), &values))], Vec::new()))
        };
        constants.into_iter().map(step).collect()
    }

    /// Pixels to what the network takes.
    fn pixels(
        &mut self,
        scale: &PixelScale,
        layout: Layout,
        element: Element,
        shape: Shape4,
    ) -> Result<String> {
        let channels = shape.c;
        let is_image = scale.is_image(shape);
        for got in [scale.scale.len(), if is_image { channels } else { scale.shift.len() }] {
            if got != channels {
                return Err(Error::Channels { got, want: channels });
            }
        }
        let mut steps = Vec::new();
        if element == Element::U8 {
            let to = Attribute::int("to", i64::from(data_type::FLOAT));
            steps.push(Step::new("Cast", Vec::new(), vec![to]));
        }
        if layout == Layout::Nhwc {
            let order = Attribute::ints("perm", [0, 3, 1, 2]);
            steps.push(Step::new("Transpose", Vec::new(), vec![order]));
        }
        if scale.reversed {
            let order: Vec<_> = (0..channels as i64).rev().collect();
            let order = self.constant(tensor::ints("preprocess.order".into(), &order));
            steps.push(Step::new("Gather", vec![order], vec![Attribute::int("axis", 1)]));
        }
        let (one, all) = ([1, channels, 1, 1], [1, channels, shape.h, shape.w]);
        let constants = [
            ("Mul", "preprocess.scale", &scale.scale, one),
            ("Add", "preprocess.shift", &scale.shift, if is_image { all } else { one }),
        ];
        for (op, name, values, dims) in constants {
            let values = HostTensor::new(dims, values.clone());
            let values = values.expect("as many values as channels or pixels");
            let name = self.constant(tensor::floats(name.into(), &values));
            steps.push(Step::new(op, vec![name], Vec::new()));
        }
        Ok(self.chain("preprocessed", vec![INPUT.into()], steps))
    }

    /// Writes one call down.
    fn call(&mut self, i: &Instruction) -> Result<()> {
        match i.call {
            Call::Conv2d(call) => self.conv2d(i, &call),
            Call::NormEval(call) => {
                let rank = self.rank(call.x);
                let mut inputs = vec![self.read(call.x, rank)?];
                for value in [call.weight, call.bias, call.running_mean, call.running_var] {
                    inputs.push(self.param(value)?);
                }
                let epsilon = vec![Attribute::float("epsilon", call.desc.eps)];
                let mut steps = vec![Step::new("BatchNormalization", Vec::new(), epsilon)];
                if let Some(residual) = call.residual {
                    let residual = self.read(residual, rank)?;
                    steps.push(Step::new("Add", vec![residual], Vec::new()));
                }
                self.activation(i, call.activation, &mut steps)?;
                self.write(i, call.out, rank, inputs, steps);
                Ok(())
            }
            Call::Activate(call) => {
                let rank = self.rank(call.x);
                let x = self.read(call.x, rank)?;
                let mut steps = Vec::new();
                self.activation(i, call.activation, &mut steps)?;
                match steps.is_empty() {
                    true => drop(self.names.insert((call.out, rank), x)),
                    false => self.write(i, call.out, rank, vec![x], steps),
                }
                Ok(())
            }
            Call::Add(call) => {
                let rank = self.rank(call.a);
                let inputs = vec![self.read(call.a, rank)?, self.read(call.b, rank)?];
                let mut steps = vec![Step::new("Add", Vec::new(), Vec::new())];
                self.activation(i, call.activation, &mut steps)?;
                self.write(i, call.out, rank, inputs, steps);
                Ok(())
            }
            Call::MaxPool(call) => self.max_pool(i, &call),
            Call::AvgPool(call) => self.avg_pool(i, &call),
            Call::Gemm(call) => self.gemm(i, &call),
            Call::Flatten(call) => {
                let x = self.read(call.x, Rank::Image)?;
                let steps = vec![Step::new("Flatten", Vec::new(), vec![Attribute::int("axis", 1)])];
                self.write(i, call.out, Rank::Vector, vec![x], steps);
                Ok(())
            }
            Call::CopyChannels(call) => self.concat(i, &call),
            _ => Err(self.unsupported(i, "")),
        }
    }

    fn conv2d(&mut self, i: &Instruction, call: &call::Conv2d<Value, Value>) -> Result<()> {
        let (desc, pads) = (call.desc, call.desc.pads(call.input.h, call.input.w));
        let mut inputs = vec![self.read(call.x, Rank::Image)?, self.param(call.weight)?];
        if let Some(bias) = call.bias {
            inputs.push(self.param(bias)?);
        }
        let attributes = vec![
            Attribute::ints("dilations", desc.dilation),
            Attribute::int("group", desc.groups as i64),
            Attribute::ints("kernel_shape", desc.kernel),
            Attribute::ints("pads", [pads.top, pads.left, pads.bottom, pads.right]),
            Attribute::ints("strides", desc.stride),
        ];
        let mut steps = vec![Step::new("Conv", Vec::new(), attributes)];
        if let Some(residual) = call.residual {
            let residual = self.read(residual, Rank::Image)?;
            steps.push(Step::new("Add", vec![residual], Vec::new()));
        }
        self.activation(i, call.activation, &mut steps)?;
        self.write(i, call.out, Rank::Image, inputs, steps);
        Ok(())
    }

    fn max_pool(&mut self, i: &Instruction, call: &call::MaxPool<Value, Value>) -> Result<()> {
        let x = self.read(call.x, Rank::Image)?;
        let step = match (call.desc, windows(call.desc, call.input)) {
            (PoolDesc::Adaptive { out: [1, 1] }, _) => Step::new("GlobalMaxPool", Vec::new(), Vec::new()),
            (_, Some(attributes)) => Step::new("MaxPool", Vec::new(), attributes),
            _ => return Err(self.unsupported(i, " with windows of several sizes")),
        };
        self.write(i, call.out, Rank::Image, vec![x], vec![step]);
        Ok(())
    }

    fn avg_pool(&mut self, i: &Instruction, call: &call::AvgPool<Value, Value>) -> Result<()> {
        let (desc, input) = (call.desc, call.input);
        let x = self.read(call.x, Rank::Image)?;
        let steps = match (desc, windows(desc, input)) {
            (PoolDesc::Adaptive { out }, _) if out == [input.h, input.w] => {
                // Each window is one value.
                self.names.insert((call.out, Rank::Image), x);
                return Ok(());
            }
            (PoolDesc::Adaptive { out: [1, 1] }, _) => {
                vec![Step::new("GlobalAveragePool", Vec::new(), Vec::new())]
            }
            (_, Some(attributes)) => vec![Step::new("AveragePool", Vec::new(), attributes)],
            (PoolDesc::Adaptive { out }, None) => return self.adaptive(i, call, out, x),
            _ => return Err(self.unsupported(i, "")),
        };
        self.write(i, call.out, Rank::Image, vec![x], steps);
        Ok(())
    }

    /// Windows of several sizes are a product with a matrix on each side.
    fn adaptive(
        &mut self,
        i: &Instruction,
        call: &call::AvgPool<Value, Value>,
        out: [usize; 2],
        x: String,
    ) -> Result<()> {
        let name = self.graph.node(i.node).name.clone();
        let matrix = |axis: usize, size: usize| {
            tensor::adaptive((0..out[axis]).map(|k| call.desc.range(axis, k, size)), size)
        };
        let rows = matrix(0, call.input.h);
        let columns = matrix(1, call.input.w).permute(&[1, 0]);
        let rows = self.constant(tensor::floats(format!("{name}.rows"), &rows));
        let columns = self.constant(tensor::floats(format!("{name}.columns"), &columns));
        let product = || Step::new("MatMul", Vec::new(), Vec::new());
        let first = self.chain(&format!("{name}.by_rows"), vec![rows, x], vec![product()]);
        self.write(i, call.out, Rank::Image, vec![first, columns], vec![product()]);
        Ok(())
    }

    fn gemm(&mut self, i: &Instruction, call: &call::Gemm<Value, Value>) -> Result<()> {
        if call.accumulate {
            return Err(self.unsupported(i, " that adds to its result"));
        }
        let mut inputs = vec![self.read(call.a, Rank::Vector)?, self.param(call.b)?];
        if let Some(bias) = call.bias {
            inputs.push(self.param(bias)?);
        }
        let transposed = [("transA", call.transpose_a), ("transB", call.transpose_b)];
        let attributes = transposed.map(|(name, yes)| Attribute::int(name, i64::from(yes))).to_vec();
        let mut steps = vec![Step::new("Gemm", Vec::new(), attributes)];
        self.activation(i, call.activation, &mut steps)?;
        self.write(i, call.c, Rank::Vector, inputs, steps);
        Ok(())
    }

    /// One piece of a concatenation; the last one writes it.
    fn concat(&mut self, i: &Instruction, call: &call::CopyChannels<Value, Value>) -> Result<()> {
        if call.accumulate || call.from != 0 || call.channels != call.input.c {
            return Err(self.unsupported(i, " of a part"));
        }
        let parts = self.parts.entry(call.out).or_default();
        parts.push(Part { to: call.to, channels: call.channels, x: call.x });
        if parts.iter().map(|p| p.channels).sum::<usize>() < call.output.c {
            return Ok(());
        }
        parts.sort_by_key(|p| p.to);
        let parts: Vec<_> = parts.iter().map(|p| p.x).collect();
        let rank = self.rank(parts[0]);
        let inputs = parts.into_iter().map(|x| self.read(x, rank)).collect::<Result<_>>()?;
        let steps = vec![Step::new("Concat", Vec::new(), vec![Attribute::int("axis", 1)])];
        self.write(i, call.out, rank, inputs, steps);
        Ok(())
    }

    /// Adds what `activation` is.
    fn activation(&mut self, i: &Instruction, activation: Activation, steps: &mut Vec<Step>) -> Result<()> {
        match activation {
            Activation::Identity => {}
            Activation::Relu => steps.push(Step::new("Relu", Vec::new(), Vec::new())),
            Activation::Relu6 => {
                let bounds = [("relu6.min", 0.0), ("relu6.max", 6.0)].map(|(name, value)| {
                    self.constant(tensor::floats(name.into(), &HostTensor::full([], value)))
                });
                steps.push(Step::new("Clip", bounds.to_vec(), Vec::new()));
            }
            _ => return Err(self.unsupported(i, &format!(" with {activation:?}"))),
        }
        Ok(())
    }

    /// The number of axes that `value` has.
    fn rank(&self, value: Value) -> Rank {
        if self.names.contains_key(&(value, Rank::Vector)) { Rank::Vector } else { Rank::Image }
    }

    /// The name of an activation, with as many axes as asked for.
    fn read(&mut self, value: Value, rank: Rank) -> Result<String> {
        if let Some(name) = self.names.get(&(value, rank)) {
            return Ok(name.clone());
        }
        let (from, step) = match rank {
            Rank::Vector => (Rank::Image, Step::new("Flatten", Vec::new(), vec![Attribute::int("axis", 1)])),
            Rank::Image => {
                let axes = self.constant(tensor::ints("axes".into(), &[2, 3]));
                (Rank::Vector, Step::new("Unsqueeze", vec![axes], Vec::new()))
            }
        };
        let name = self.names.get(&(value, from)).expect("a plan computes before it reads").clone();
        let turned = self.chain(&format!("{name}.{}", step.op.to_lowercase()), vec![name], vec![step]);
        self.names.insert((value, rank), turned.clone());
        Ok(turned)
    }

    /// Runs `steps` on `inputs` and calls the result as the graph calls it.
    fn write(&mut self, i: &Instruction, out: Value, rank: Rank, inputs: Vec<String>, steps: Vec<Step>) {
        let node = match self.plan.values.info(out).origin {
            Origin::Output(node) => node,
            _ => i.node,
        };
        let name = self.node_name(node);
        let name = self.chain(&name, inputs, steps);
        self.names.insert((out, rank), name);
    }

    /// Runs `steps` one after the other; returns the last one's name, which is `name` or near it.
    fn chain(&mut self, name: &str, inputs: Vec<String>, steps: Vec<Step>) -> String {
        let (last, mut inputs) = (steps.len() - 1, inputs);
        for (at, step) in steps.into_iter().enumerate() {
            let wanted =
                if at == last { name.to_owned() } else { format!("{name}.{}", step.op.to_lowercase()) };
            let output = self.unique(wanted);
            inputs.extend(step.more);
            self.nodes.push(proto::Node {
                input: std::mem::replace(&mut inputs, vec![output.clone()]),
                output: vec![output.clone()],
                name: output,
                op_type: step.op.into(),
                attribute: step.attributes,
            });
        }
        inputs.remove(0)
    }

    /// The name of a parameter or of folded weights, which are written where they are read first.
    fn param(&mut self, value: Value) -> Result<String> {
        let tensor = match self.plan.values.info(value).origin {
            Origin::Param(id) => {
                let name = self.graph.param(id).name.clone();
                if self.constants.contains(&name) {
                    return Ok(name);
                }
                tensor::floats(name, &self.host(value)?)
            }
            Origin::Folded(node, is_weight) => {
                let what = if is_weight { "weight" } else { "bias" };
                let name = format!("{}.folded.{what}", self.node_name(node));
                match self.folded.get(&value) {
                    Some(host) => tensor::floats(name, host),
                    None => return Err(Error::Param { name }),
                }
            }
            origin => return Err(Error::Param { name: format!("{origin:?}") }),
        };
        Ok(self.constant(tensor))
    }

    /// A parameter's value.
    fn host(&self, value: Value) -> Result<HostTensor> {
        let name = match self.plan.values.info(value).origin {
            Origin::Param(id) => &self.graph.param(id).name,
            origin => return Err(Error::Param { name: format!("{origin:?}") }),
        };
        let shape = self.graph.find_param(name).map(|id| &self.graph.param(id).shape);
        match self.params.get(name) {
            Some(host) if Some(host.shape()) == shape.map(Vec::as_slice) => Ok(host.clone()),
            _ => Err(Error::Param { name: name.clone() }),
        }
    }

    /// Adds a constant, once.
    fn constant(&mut self, tensor: proto::Tensor) -> String {
        let name = tensor.name.clone();
        if self.constants.insert(name.clone()) {
            self.initializers.push(tensor);
        }
        name
    }

    /// Gives a computed value another name.
    fn rename(&mut self, old: &str, new: &str) {
        for node in &mut self.nodes {
            let names = node.input.iter_mut().chain(&mut node.output).chain([&mut node.name]);
            names.filter(|n| *n == old).for_each(|n| *n = new.into());
        }
    }

    fn unique(&mut self, name: String) -> String {
        let mut candidate = name.clone();
        let mut count = 2;
        // A parameter keeps its name.
        while self.graph.find_param(&candidate).is_some() || !self.taken.insert(candidate.clone()) {
            candidate = format!("{name}.{count}");
            count += 1;
        }
        candidate
    }

    fn node_name(&self, node: NodeId) -> String {
        self.graph.node(node).name.clone()
    }

    fn unsupported(&self, i: &Instruction, special: &str) -> Error {
        Error::Unsupported { node: self.node_name(i.node), what: format!("`{}`{special}", i.call.name()) }
    }
}

/// The attributes of a pool whose windows all have one size. Padding is written out, so that a last, partial window needs no
/// `ceil_mode`, whose rule has changed between versions; it is never counted.
fn windows(desc: PoolDesc, input: Shape4) -> Option<Vec<Attribute>> {
    let (kernel, stride, padding) = match desc {
        PoolDesc::Window { kernel, stride, padding, .. } => (kernel, stride, padding),
        PoolDesc::Adaptive { out: [h, w] } if input.h.is_multiple_of(h) && input.w.is_multiple_of(w) => {
            let kernel = [input.h / h, input.w / w];
            (kernel, kernel, [0, 0])
        }
        _ => return None,
    };
    let out = desc.output(input).ok()?;
    let after = |axis: usize, out: usize, size: usize| {
        ((out - 1) * stride[axis] + kernel[axis]).saturating_sub(size + padding[axis])
    };
    let pads = [padding[0], padding[1], after(0, out.h, input.h), after(1, out.w, input.w)];
    Some(vec![
        Attribute::ints("kernel_shape", kernel),
        Attribute::ints("pads", pads),
        Attribute::ints("strides", stride),
    ])
}

/// A value `[N, …]`.
fn value_info(name: &str, elem_type: i32, dims: &[usize]) -> proto::ValueInfo {
    let free = Extent::Param("N".into());
    let dims = [free].into_iter().chain(dims.iter().map(|&d| Extent::Value(d as i64)));
    let dim = dims.map(|extent| proto::Dimension { value: Some(extent) }).collect();
    let tensor_type = proto::TensorType { elem_type, shape: Some(proto::Shape { dim }) };
    proto::ValueInfo { name: name.into(), r#type: Some(proto::Type { tensor_type: Some(tensor_type) }) }
}
