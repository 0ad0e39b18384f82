//! `tandem top`: a broker at work, on a terminal; once, for programs.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;
use tandem_client::wamp;
use tokio::time::sleep;

use crate::cli::connection::{Connection, Settings, seconds};
use crate::cli::failure::Failure;
use crate::cli::output::{self, Output};
use crate::cli::runner::{self, Ending};
use crate::cli::sample::{Reading, Sample};
use crate::cli::screen;

/// Between the two readings of a sample that is alone.
const ONCE: Duration = Duration::from_secs(1);

const EXAMPLES: &str = "\
Examples:
  tandem top
  tandem top --url wss://broker.example/ --user admin --interval 5
  tandem top --json | jq '.queues[] | select(.consumers == 0) | .queue'

Sessions, topics and procedures are those of the realm, by WAMP's meta API, with any router that has it. Queues and
sessions for which messages wait are shown of Tandem. Rates and memory are of the whole broker, from its page /metrics,
which it shows to its own machine. `in/s` and `out/s` of a queue are what was put in and what has gone.";

/// See the verb.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Top {
    /// Seconds between two looks.
    #[arg(long, default_value = "2", value_parser = seconds, value_name = "SECONDS")]
    interval: Duration,
    /// Print one sample and end; without a terminal, it is always so.
    #[arg(long)]
    once: bool,
    /// Rows of each table.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000), value_name = "COUNT")]
    rows: u16,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// The terminal is ours until this is dropped.
struct Terminal;

impl Terminal {
    fn take() -> Result<Terminal, Failure> {
        // Another screen, and no cursor on it.
        print(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Terminal)
    }

    /// Draws over what was there.
    fn draw(&self, lines: &[String]) -> Result<(), Failure> {
        // A terminal that does not know its size says that it is nothing.
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_col > 0);
        let (columns, rows) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row.max(2)));
        let mut frame = b"\x1b[H".to_vec();
        for line in lines.iter().take(usize::from(rows) - 1) {
            frame.extend_from_slice(screen::cut(line, columns.into()).as_bytes());
            frame.extend_from_slice(b"\x1b[0m\x1b[K\r\n");
        }
        frame.extend_from_slice(b"\x1b[J");
        print(&frame)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nobody is left to tell that it stays as it is.
        let _ = print(b"\x1b[?25h\x1b[?1049l");
    }
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

impl Top {
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) async fn run(self) -> Result<(), Failure> {
        let settings = self.connection.settings()?;
        let is_live = !self.once && !self.output.json && std::io::stdout().is_terminal();
        let ending = if is_live { Ending::Endless } else { Ending::Whole };
        let work = async |client: &wamp::Client| {
            if is_live { self.live(&settings, client).await } else { self.once(&settings, client).await }
        };
        runner::wamp(&settings, self.output, ending, work).await
    }

    async fn once(&self, settings: &Settings, client: &wamp::Client) -> Result<(), Failure> {
        let before = Reading::take(settings, client, self.rows.into()).await?;
        sleep(ONCE).await;
        let sample = Sample::new(settings, &before, Reading::take(settings, client, self.rows.into()).await?);
        if self.output.json {
            return self.output.object(&Value::Object(sample.to_json()));
        }
        let lines = screen::lines(&sample, self.rows.into(), output::has_colours(&std::io::stdout()));
        output::line(lines.join("\n").trim_end().as_bytes())
    }

    async fn live(&self, settings: &Settings, client: &wamp::Client) -> Result<(), Failure> {
        let terminal = Terminal::take()?;
        let colours = output::has_colours(&std::io::stdout());
        let mut before = Reading::take(settings, client, self.rows.into()).await?;
        let mut pause = ONCE.min(self.interval);
        loop {
            sleep(pause).await;
            pause = self.interval;
            let reading = match Reading::take(settings, client, self.rows.into()).await {
                Ok(reading) => reading,
                Err(failure) => {
                    // The client connects again; what is shown meanwhile says so.
                    terminal.draw(&[failure.to_string()])?;
                    continue;
                }
            };
            let sample = Sample::new(settings, &before, reading);
            terminal.draw(&screen::lines(&sample, self.rows.into(), colours))?;
            before = sample.into_reading();
        }
    }
}
