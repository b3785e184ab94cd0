//! The arguments that name pictures.

use std::path::PathBuf;

use clap::Args;

/// Pictures and what they show.
#[derive(Args, Debug)]
pub(crate) struct Data {
    /// The folder of pictures: one sub-folder a class, or train/ and val/ with such folders; or a table (.csv)
    #[arg(value_name = "DATA")]
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) table: Table,
}

/// What a table of pictures needs beside itself.
#[derive(Args, Debug)]
pub(crate) struct Table {
    /// The folder that the paths of a table are relative to, if not the table's own
    #[arg(long, value_name = "FOLDER")]
    pub(crate) images: Option<PathBuf>,
}

impl Data {
    /// A training on these pictures.
    pub(crate) fn fine_tune(&self) -> defrost::FineTune {
        let mut fine_tune = defrost::FineTune::on(&self.path);
        fine_tune.images.clone_from(&self.table.images);
        fine_tune
    }
}
