//! Typed values in place of bytes: encodings, and the view of a core through one.

use std::sync::Arc;

#[cfg(feature = "json")]
use crate::ErrorKind;
use crate::core::append::Appended;
use crate::core::handle::Hypercore;
use crate::core::limits::check_block;
use crate::core::options::{GetOptions, ReadOptions};
use crate::core::streams::{ReadStream, WriteStream};
use crate::{Error, Result};

/// A conversion between values and blocks.
pub trait Encoding {
    /// The type of the values that are appended.
    type Input: ?Sized;
    /// The type of the values that are read.
    type Output;

    /// Converts `value` to a block. Fails with an error of kind [`Encoding`](crate::ErrorKind::Encoding) if it cannot.
    fn encode(&self, value: &Self::Input) -> Result<Vec<u8>>;

    /// Converts `block` to a value. Fails with an error of kind [`Decoding`](crate::ErrorKind::Decoding) if
    /// it holds none.
    fn decode(&self, block: Vec<u8>) -> Result<Self::Output>;
}

/// Blocks as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Binary;

impl Encoding for Binary {
    type Input = [u8];
    type Output = Vec<u8>;

    fn encode(&self, value: &[u8]) -> Result<Vec<u8>> {
        Ok(value.to_vec())
    }

    fn decode(&self, block: Vec<u8>) -> Result<Vec<u8>> {
        Ok(block)
    }
}

/// Blocks of UTF-8 text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl Encoding for Utf8 {
    type Input = str;
    type Output = String;

    fn encode(&self, value: &str) -> Result<Vec<u8>> {
        Ok(value.as_bytes().to_vec())
    }

    fn decode(&self, block: Vec<u8>) -> Result<String> {
        String::from_utf8(block).map_err(|_| Error::decoding("the block is not UTF-8 text"))
    }
}

/// Blocks of JSON text, for values that serde can convert.
#[cfg(feature = "json")]
#[cfg_attr(docsrs, doc(cfg(feature = "json")))]
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(std::marker::PhantomData<fn() -> T>);

#[cfg(feature = "json")]
impl<T> Json<T> {
    /// Creates the encoding for values of type `T`; `Json::<serde_json::Value>::new()` takes any.
    pub fn new() -> Self {
        Json(std::marker::PhantomData)
    }
}

#[cfg(feature = "json")]
impl<T> Default for Json<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "json")]
impl<T: serde_core::Serialize + serde_core::de::DeserializeOwned> Encoding for Json<T> {
    type Input = T;
    type Output = T;

    fn encode(&self, value: &T) -> Result<Vec<u8>> {
        serde_json::to_vec(value)
            .map_err(|e| Error::new(ErrorKind::Encoding, format!("the value cannot be written as JSON: {e}")))
    }

    fn decode(&self, block: Vec<u8>) -> Result<T> {
        serde_json::from_slice(&block).map_err(|e| Error::decoding(format!("the block is not the JSON expected: {e}")))
    }
}

/// Typed values.
impl Hypercore {
    /// Returns a view of this session that appends and reads values through `encoding`.
    #[doc(alias = "valueEncoding")]
    pub fn encoded<E: Encoding>(&self, encoding: E) -> Encoded<E> {
        Encoded::new(self.clone(), encoding)
    }
}

/// A core whose blocks are values of an [`Encoding`]; made by [`Hypercore::encoded`].
///
/// ```
/// use hypercore::{Hypercore, Utf8};
///
/// let core = Hypercore::in_memory()?.encoded(Utf8);
/// core.append("grüezi")?;
/// assert_eq!(core.get(0)?, "grüezi");
/// # Ok::<(), hypercore::Error>(())
/// ```
pub struct Encoded<E: Encoding> {
    core: Hypercore,
    encoding: E,
    encode_batch: Option<EncodeBatch<E>>,
}

type EncodeBatch<E> = Arc<dyn Fn(&[&<E as Encoding>::Input]) -> Result<Vec<Vec<u8>>> + Send + Sync>;

impl<E: Encoding> Encoded<E> {
    pub(crate) fn new(core: Hypercore, encoding: E) -> Self {
        Encoded { core, encoding, encode_batch: None }
    }

    /// Encodes whole batches with `f` in place of each value on its own. All blocks that `f` returns are appended;
    /// their number may differ from that of the values.
    #[doc(alias = "encodeBatch")]
    pub fn encode_batch(mut self, f: impl Fn(&[&E::Input]) -> Result<Vec<Vec<u8>>> + Send + Sync + 'static) -> Self {
        self.encode_batch = Some(Arc::new(f));
        self
    }

    /// The core itself, for everything that does not concern values.
    pub fn core(&self) -> &Hypercore {
        &self.core
    }

    /// Appends one value. Blocks and fails as [`Hypercore::append`] does; errors of the encoding append nothing.
    pub fn append(&self, value: &E::Input) -> Result<Appended> {
        self.append_batch([value])
    }

    /// Appends values, all or none. Blocks and fails as [`Hypercore::append_batch`] does.
    pub fn append_batch<'a>(&self, values: impl IntoIterator<Item = &'a E::Input>) -> Result<Appended>
    where
        E::Input: 'a,
    {
        let values: Vec<&E::Input> = values.into_iter().collect();
        self.core.append_batch(self.blocks(&values)?)
    }

    /// Returns the value of block `index`. Waits and fails as [`Hypercore::get`] does.
    pub fn get(&self, index: u64) -> Result<E::Output> {
        self.encoding.decode(self.core.get(index)?)
    }

    /// Like [`Encoded::get`], with options. Returns `None` where [`Hypercore::get_with`] does.
    pub fn get_with(&self, index: u64, options: GetOptions) -> Result<Option<E::Output>> {
        self.core.get_with(index, options)?.map(|block| self.encoding.decode(block)).transpose()
    }

    /// Returns an iterator over the values; see [`Hypercore::read_stream`].
    pub fn read_stream(&self, options: ReadOptions) -> Result<impl Iterator<Item = Result<E::Output>> + '_> {
        let stream: ReadStream = self.core.read_stream(options)?;
        Ok(stream.map(|block| self.encoding.decode(block?)))
    }

    /// Returns a writer that takes values one at a time and appends them in batches, as [`Hypercore::write_stream`]
    /// does for blocks.
    #[doc(alias = "createWriteStream")]
    pub fn write_stream(&self) -> EncodedWriteStream<'_, E> {
        EncodedWriteStream { encoded: self, stream: self.core.write_stream() }
    }

    fn blocks(&self, values: &[&E::Input]) -> Result<Vec<Vec<u8>>> {
        match &self.encode_batch {
            Some(encode) => encode(values),
            None => values.iter().map(|value| self.encoding.encode(value)).collect(),
        }
    }
}

impl<E: Encoding + Clone> Clone for Encoded<E> {
    fn clone(&self) -> Self {
        let Encoded { core, encoding, encode_batch } = self;
        Encoded { core: core.clone(), encoding: encoding.clone(), encode_batch: encode_batch.clone() }
    }
}

/// A [`WriteStream`] of values; made by [`Encoded::write_stream`].
///
/// ```
/// use hypercore::{Hypercore, Utf8};
///
/// let core = Hypercore::in_memory()?.encoded(Utf8);
/// let mut stream = core.write_stream();
/// for word in ["brave", "new", "world"] {
///     stream.write(word)?;
/// }
/// stream.flush()?;
/// assert_eq!(core.get(2)?, "world");
/// # Ok::<(), hypercore::Error>(())
/// ```
pub struct EncodedWriteStream<'a, E: Encoding> {
    encoded: &'a Encoded<E>,
    stream: WriteStream,
}

impl<E: Encoding> EncodedWriteStream<'_, E> {
    /// Adds one value to the batch, and appends the batch if it is full.
    ///
    /// A value that cannot be encoded, or whose block is too large, is refused; the batch stays as it was. The
    /// function of [`Encoded::encode_batch`] gets each value as a batch of its own.
    pub fn write(&mut self, value: &E::Input) -> Result<()> {
        let blocks = self.encoded.blocks(&[value])?;
        // Check all before adding any: if one is too large, none is added.
        blocks.iter().try_for_each(|block| check_block(block))?;
        blocks.into_iter().try_for_each(|block| self.stream.write(block))
    }

    /// As [`WriteStream::flush`].
    pub fn flush(&mut self) -> Result<Option<Appended>> {
        self.stream.flush()
    }
}

impl<E: Encoding> std::fmt::Debug for EncodedWriteStream<'_, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EncodedWriteStream").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl<E: Encoding> std::fmt::Debug for Encoded<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoded").field("core", &self.core).finish_non_exhaustive()
    }
}
