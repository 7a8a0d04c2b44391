//! Writes small ONNX files, for what the checked-in models do not have.

/// A field of bytes, which may be a message.
#[must_use]
pub fn bytes(field: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let mut out = varint(u64::from(field) << 3 | 2);
    out.extend(varint(content.len() as u64));
    out.extend(content);
    out
}

/// A field of a whole number.
#[must_use]
pub fn number(field: u8, value: u64) -> Vec<u8> {
    let mut out = varint(u64::from(field) << 3);
    out.extend(varint(value));
    out
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

/// A tensor of float32 that is part of the model.
#[must_use]
pub fn weights(name: &str, values: &[f32]) -> Vec<u8> {
    let data: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    [
        number(1, values.len() as u64),
        number(2, 1),
        bytes(8, name),
        bytes(9, data),
    ]
    .concat()
}

/// As [`weights`], with the values in a file beside the model.
#[must_use]
pub fn weights_in_file(name: &str, count: u64, file: &str) -> Vec<u8> {
    let location = [bytes(1, "location"), bytes(2, file)].concat();
    [
        number(1, count),
        number(2, 1),
        bytes(8, name),
        bytes(13, location),
        number(14, 1),
    ]
    .concat()
}

/// A graph in the making.
#[derive(Debug, Default)]
pub struct Graph {
    fields: Vec<Vec<u8>>,
}

impl Graph {
    /// An operator without attributes.
    #[must_use]
    pub fn node(mut self, operator: &str, inputs: &[&str], outputs: &[&str]) -> Self {
        let mut node: Vec<_> = inputs.iter().map(|name| bytes(1, name)).collect();
        node.extend(outputs.iter().map(|name| bytes(2, name)));
        node.push(bytes(4, operator));
        self.fields.push(bytes(1, node.concat()));
        self
    }

    /// An operator with one attribute, a whole number.
    #[must_use]
    pub fn node_with(mut self, operator: &str, io: [&str; 2], attribute: &str, value: u64) -> Self {
        let attribute = [bytes(1, attribute), number(3, value), number(20, 2)].concat();
        let node = [
            bytes(1, io[0]),
            bytes(2, io[1]),
            bytes(4, operator),
            bytes(5, attribute),
        ];
        self.fields.push(bytes(1, node.concat()));
        self
    }

    /// A tensor that is part of the model.
    #[must_use]
    pub fn initializer(mut self, tensor: Vec<u8>) -> Self {
        self.fields.push(bytes(5, tensor));
        self
    }

    /// An input with elements of the type with ONNX's number, and dimensions of these sizes, or open ones of these names.
    #[must_use]
    pub fn input(mut self, name: &str, element: u64, dimensions: &[&str]) -> Self {
        self.fields
            .push(bytes(11, value(name, element, dimensions)));
        self
    }

    /// As [`Graph::input`].
    #[must_use]
    pub fn output(mut self, name: &str, element: u64, dimensions: &[&str]) -> Self {
        self.fields
            .push(bytes(12, value(name, element, dimensions)));
        self
    }

    /// The file.
    #[must_use]
    pub fn model(self) -> Vec<u8> {
        let graph = [bytes(2, "test"), self.fields.concat()].concat();
        [number(1, 8), bytes(7, graph), bytes(8, number(2, 17))].concat()
    }
}

fn value(name: &str, element: u64, dimensions: &[&str]) -> Vec<u8> {
    let dimension = |dimension: &&str| match dimension.parse() {
        Ok(size) => number(1, size),
        Err(_) => bytes(2, dimension),
    };
    let shape = dimensions.iter().map(|name| bytes(1, dimension(name)));
    let tensor = [
        number(1, element),
        bytes(2, shape.collect::<Vec<_>>().concat()),
    ]
    .concat();
    [bytes(1, name), bytes(2, bytes(1, tensor))].concat()
}
