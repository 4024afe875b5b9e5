//! Rows as an Arrow IPC stream: a schema and at most one batch. Types are found in the values, since rows are kept as JSON.

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int64Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};
use bytes::Bytes;

use super::{DamagedRow, Rows};
use crate::jobs::results::cells::{Cell, cells};

/// As registered with IANA.
pub(in crate::http) const MEDIA_TYPE: &str = "application/vnd.apache.arrow.stream";

/// Whole numbers beyond this are not all numbers of 64-bit floating point.
const EXACT_MAX: u64 = 1 << 53;

impl Rows<'_> {
    /// The rows as a stream. The schema's metadata say `row_count` and `truncated` of the whole result.
    pub(in crate::http) fn arrow(&self) -> Result<Bytes, DamagedRow> {
        let lines: Vec<Vec<Cell<'_>>> = self.lines().map(cells).collect();
        if lines.iter().any(|line| line.len() != self.columns.len()) {
            return Err(DamagedRow);
        }
        let columns: Vec<ArrayRef> = (0..self.columns.len())
            .map(|at| array(kind(lines.iter().map(|line| &line[at])), lines.iter().map(|line| &line[at])))
            .collect();
        let written = write(self.schema(&columns), columns, lines.len());
        // Nothing of it can fail: the columns are of one length and of the schema's types, and memory takes every write.
        Ok(written
            .map_err(|error| tracing::error!(%error, "rows cannot be written as Arrow"))
            .map_err(|()| DamagedRow)?
            .into())
    }

    fn schema(&self, columns: &[ArrayRef]) -> Schema {
        let field = |(name, column): (&String, &ArrayRef)| Field::new(name, column.data_type().clone(), true);
        let fields: Vec<Field> = self.columns.iter().zip(columns).map(field).collect();
        let metadata = [("row_count", self.row_count.to_string()), ("truncated", self.truncated.to_string())];
        Schema::new(fields).with_metadata(metadata.map(|(key, value)| (key.to_owned(), value)))
    }
}

fn write(schema: Schema, columns: Vec<ArrayRef>, rows: usize) -> Result<Vec<u8>, ArrowError> {
    let schema = Arc::new(schema);
    // Said apart, because a batch without columns could not tell.
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns, &options)?;
    let mut stream = StreamWriter::try_new(Vec::new(), &schema)?;
    stream.write(&batch)?;
    stream.into_inner()
}

/// The narrowest type that holds every value as it is: no digit is lost and nothing is guessed. A column without values is
/// of texts.
fn kind<'a>(values: impl Iterator<Item = &'a Cell<'a>>) -> DataType {
    let values: Vec<&Cell<'_>> = values.filter(|cell| **cell != Cell::Null).collect();
    match () {
        () if values.is_empty() => DataType::Utf8,
        () if values.iter().all(|cell| boolean(cell).is_some()) => DataType::Boolean,
        () if values.iter().all(|cell| integer(cell).is_some()) => DataType::Int64,
        () if values.iter().all(|cell| real(cell).is_some()) => DataType::Float64,
        () => DataType::Utf8,
    }
}

fn array<'a>(kind: DataType, values: impl Iterator<Item = &'a Cell<'a>>) -> ArrayRef {
    match kind {
        DataType::Boolean => {
            let mut column = BooleanBuilder::new();
            values.for_each(|cell| column.append_option(boolean(cell)));
            Arc::new(column.finish())
        }
        DataType::Int64 => {
            let mut column = Int64Builder::new();
            values.for_each(|cell| column.append_option(integer(cell)));
            Arc::new(column.finish())
        }
        DataType::Float64 => {
            let mut column = Float64Builder::new();
            values.for_each(|cell| column.append_option(real(cell)));
            Arc::new(column.finish())
        }
        _ => {
            let mut column = StringBuilder::new();
            values.for_each(|cell| column.append_option((*cell != Cell::Null).then(|| cell.text())));
            Arc::new(column.finish())
        }
    }
}

fn boolean(cell: &Cell<'_>) -> Option<bool> {
    match cell {
        Cell::Json("true") => Some(true),
        Cell::Json("false") => Some(false),
        Cell::Null | Cell::Number(_) | Cell::Text(_) | Cell::Json(_) => None,
    }
}

fn integer(cell: &Cell<'_>) -> Option<i64> {
    match cell {
        Cell::Number(digits) => digits.parse().ok(),
        Cell::Null | Cell::Text(_) | Cell::Json(_) => None,
    }
}

fn real(cell: &Cell<'_>) -> Option<f64> {
    let Cell::Number(digits) = cell else { return None };
    let is_whole = !digits.contains(['.', 'e', 'E']);
    let is_exact = !is_whole || digits.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= EXACT_MAX);
    digits.parse().ok().filter(|number: &f64| is_exact && number.is_finite())
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type};
    use arrow_ipc::reader::StreamReader;

    use super::*;

    fn read(columns: &[&str], ndjson: &str) -> RecordBatch {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let rows = Rows { columns: &columns, ndjson: ndjson.as_bytes(), row_count: 9, truncated: true };
        let stream = rows.arrow().expect("whole rows");
        let mut batches = StreamReader::try_new(&stream[..], None).expect("a stream");
        let metadata = batches.schema().metadata().clone();
        assert_eq!((metadata["row_count"].as_str(), metadata["truncated"].as_str()), ("9", "true"));
        let batch = batches.next().expect("one batch").expect("a whole one");
        assert!(batches.next().is_none());
        batch
    }

    fn kinds(batch: &RecordBatch) -> Vec<DataType> {
        batch.schema().fields().iter().map(|field| field.data_type().clone()).collect()
    }

    #[test]
    fn another_reader_finds_types_and_values() {
        let batch = read(
            &["n", "x", "t", "b", "none"],
            "[1,1.5,\"a\\n\",true,null]\n[null,2,null,null,null]\n[-9223372036854775808,-0.25,\"é\",false,null]\n",
        );
        let expected = [DataType::Int64, DataType::Float64, DataType::Utf8, DataType::Boolean, DataType::Utf8];
        assert_eq!((batch.num_rows(), kinds(&batch)), (3, expected.to_vec()));
        let n: Vec<_> = batch.column(0).as_primitive::<Int64Type>().iter().collect();
        assert_eq!(n, [Some(1), None, Some(i64::MIN)]);
        let x: Vec<_> = batch.column(1).as_primitive::<Float64Type>().iter().collect();
        assert_eq!(x, [Some(1.5), Some(2.0), Some(-0.25)]);
        let t: Vec<_> = batch.column(2).as_string::<i32>().iter().collect();
        assert_eq!(t, [Some("a\n"), None, Some("é")]);
        let b: Vec<_> = batch.column(3).as_boolean().iter().collect();
        assert_eq!(b, [Some(true), None, Some(false)]);
        assert_eq!(batch.column(4).null_count(), 3);
    }

    #[test]
    fn no_digit_is_lost_and_nothing_is_guessed() {
        let batch = read(
            &["huge", "mixed", "exact", "nested"],
            "[18446744073709551615,1,9007199254740993,[1]]\n[1,\"1\",0.5,true]\n",
        );
        assert_eq!(kinds(&batch), vec![DataType::Utf8; 4]);
        let texts =
            |at: usize| batch.column(at).as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(texts(0), ["18446744073709551615", "1"]);
        assert_eq!(texts(2), ["9007199254740993", "0.5"]);
        assert_eq!(texts(3), ["[1]", "true"]);
    }

    #[test]
    fn no_rows_are_fine_and_damaged_ones_are_told() {
        assert_eq!(read(&["a"], "").num_rows(), 0);
        assert_eq!(read(&[], "[]\n[]\n").num_rows(), 2);
        let columns = ["a".to_owned()];
        let rows = Rows { columns: &columns, ndjson: b"[1,2]\n", row_count: 1, truncated: false };
        assert!(rows.arrow().is_err());
    }
}
