#pragma once
#include <memory>
#include <string>
#include <vector>

#include "annulus/engine/heads.hpp"
#include "annulus/store/draft.hpp"
#include "annulus/store/row_writer.hpp"
#include "annulus/transport/transport.hpp"
#include "app/traces.hpp"

namespace annulus::app {

/// What `run` is asked to look at, and all that `verify` needs to see the same again.
struct SequenceChoice {
  std::string model = "auto";   ///< induction or similarity; auto: similarity when the first file is a sound file
  std::string tokens = "auto";  ///< of texts: words, bytes or bases; auto: as the names of the files say
  std::vector<std::string> files;
  DType type = DType::f32;
  bool documents_apart = false;      ///< the mask keeps documents apart
  Index passage_tokens = 0;          ///< shortest passage reported; 0: 12, of bases 32
  std::vector<Index> contexts = {};  ///< of the heads that read texts; empty: usual_contexts()
};

/// Documents or a recording as one long sequence of tokens with queries, keys and values of their own, and what their
/// attention means. Every rank has one; prepare, and the functions that take a transport, are called by all ranks.
class Sequence {
 public:
  virtual ~Sequence() = default;
  virtual std::string model() const = 0;
  virtual AttentionShape shape() const = 0;
  virtual Index tokens() const = 0;
  virtual std::vector<Index> documents() const = 0;
  /// The mask when none is asked for; a mask of its own when the term algebra cannot say it.
  virtual Mask mask(const std::string& terms) const = 0;
  virtual std::vector<std::string> files() const = 0;
  /// What a token is: words, bytes, bases, sounds.
  virtual std::string token_kind() const = 0;
  /// Bytes a rank keeps for each of its tokens, besides rows and traces.
  virtual Index bytes_per_token() const { return 0; }
  /// Global sums and maxima that embedding needs.
  virtual void prepare(Transport& transport) = 0;
  /// Rows of the tokens at `runs`; absent views are not wanted.
  virtual void embed(std::span<const Run> runs, const Rows& q, const Rows& k, const Rows& v) = 0;
  virtual void declare(Draft& draft, const TraceChoice& traces) const = 0;
  /// Datasets of /tokens that say where a token stands: byte_begin, time_s.
  virtual std::vector<std::string> coordinates() const = 0;
  /// Reads the attention of this rank's rows: predictions, links.
  virtual void read_out(const Job& job, Rank rank, const Traces& traces, const Rows& lse) = 0;
  virtual void write(RowWriter& writer, std::span<const Run> runs) const = 0;
  /// Brings links and sums together on the lead.
  virtual void collect(Transport& transport) = 0;
  /// Small datasets, and what a person wants to read (lead).
  virtual void write_small(Draft& draft) const = 0;
  virtual void print() const = 0;
};

std::unique_ptr<Sequence> make_sequence(const SequenceChoice& choice);
std::unique_ptr<Sequence> make_text_sequence(const SequenceChoice& choice);
/// One recording. Only in builds that have audio; backends.hpp knows.
std::unique_ptr<Sequence> make_audio_sequence(const SequenceChoice& choice);
/// Whether a file is meant as sound: by its name (.wav, .flac, .ogg and others that libsndfile reads), else by its first
/// bytes. A file that cannot be read is not.
bool is_sound_file(const std::string& path);

/// The mask of these terms, with causal added where tokens would see later ones: what comes next is read from what came before.
/// No terms: causal. Throws Error (usage) where a prefix lets tokens see later ones all the same.
Mask mask_looking_back(const std::string& terms, const Extent& extent);

/// Datasets of /tokens as coordinates of a group whose datasets are by token: links to them, and the attribute
/// `coordinates` by which xarray knows them. others: what the group has of its own.
void share_coordinates(Draft& draft, const std::string& group, const std::vector<std::string>& names,
                       const std::string& others = "");

/// The passages of a sequence as datasets under /passages, one row each.
struct PassageTable {
  std::vector<Index> columns[5];  ///< first_begin, first_end, second_begin, second_end (tokens), links
  std::vector<double> score;
  std::vector<std::string> text;
};
void write_passages(Draft& draft, const PassageTable& table, const std::string& what);

}  // namespace annulus::app
