#pragma once
#include <functional>
#include <string>
#include <string_view>

#include "annulus/base/types.hpp"
#include "input/text_file.hpp"

namespace annulus {

/// Takes what a FASTA file holds, in its order.
struct FastaEvents {
  std::function<void(std::string name)> record;  ///< a record begins; see read_fasta for its name
  /// Residues as they stand in the file, lower case included; `at` is the byte of the first, the others follow it.
  std::function<void(std::string_view residues, Index at)> residues;
};

/// Reads records of nucleotides or amino acids:
///
///   >chr1 some words        a line that begins with > or ; begins a record, named by its first word
///   ; more words            but a ; line that follows one of those at once only says more of it
///   ACGTnacgt-*             letters, * and -; white space and line ends (LF, CRLF, CR) are skipped
///
/// A name is cut after 1,024 bytes; control characters in it, and all that is not ASCII in one that is not UTF-8, become
/// \xNN. Throws Error (file) with the byte of whatever else is in a sequence, or stands before the first record.
void read_fasta(TextFile& file, const FastaEvents& events);

}  // namespace annulus
