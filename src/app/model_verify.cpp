#include "app/model_verify.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "app/context.hpp"
#include "app/model_subject.hpp"

namespace annulus::app {
namespace {

// Two f32 sums of n products in another order differ by less than 8 units of rounding x sqrt(n), over what they are sums of.
double sums_off(Index n) { return 8 * 0x1p-24 * std::sqrt(static_cast<double>(n)); }

// The longest q and k met: scores are at most their product.
struct Lengths {
  double q = 0, k = 0;
};

double longest(const Rows& rows) {
  double most = 0;
  std::vector<float> row(static_cast<std::size_t>(rows.heads * rows.channels));
  for (Index token = 0; token < rows.tokens; ++token) {
    convert(rows.slice(token, token + 1), dense_rows(row.data(), DType::f32, 1, rows.heads, rows.channels));
    for (Index h = 0; h < rows.heads; ++h) {
      const float* x = row.data() + h * rows.channels;
      most = std::max(most, std::inner_product(x, x + rows.channels, x, 0.0));
    }
  }
  return std::sqrt(most);
}

std::vector<double> doubles(const Rows& rows) {
  std::vector<double> all(static_cast<std::size_t>(rows.tokens * rows.heads * rows.channels));
  convert(rows, dense_rows(all.data(), DType::f64, rows.tokens, rows.heads, rows.channels));
  return all;
}

double largest_size(const std::vector<double>& numbers) {
  double most = 0;
  for (const double x : numbers) most = std::max(most, std::abs(x));
  return most;
}

std::vector<Run> single_runs(const std::vector<Index>& rows) {
  std::vector<Run> runs;
  for (const Index row : rows) runs.push_back({row, 1, 1});
  return runs;
}

class TransformerEvidence final : public ModelEvidence {
 public:
  TransformerEvidence(const InputFile& file, const std::string& folder, const std::vector<std::string>& inputs)
      : file_(file), type_(parse_dtype(file.text("/", "dtype"))), subject_(choice_of(file, folder, inputs)) {
    transformer_.emplace(folder, subject_.shape, type_, Context::cores());
    require<Failure::file>(file.shape("tokens/ids").dims == std::vector<Index>{subject_.texts->tokens()}, file.path(),
                           " must have an id for each of the ", subject_.texts->tokens(),
                           " tokens of its texts: tokens/ids is ", text_of(file.shape("tokens/ids")));
  }

  Index tokens() const override { return subject_.texts->tokens(); }

  std::vector<Index> layers() const override {
    std::vector<Index> all;
    for (Index layer = 0; layer < subject_.shape.layers; ++layer)
      if (file_.has(layer_group(layer)) && (keeps_qkv(layer) || keeps_input(layer))) all.push_back(layer);
    return all;
  }

  std::string note() const override {
    Index left = 0;
    for (Index layer = 0; layer < subject_.shape.layers; ++layer)
      left += file_.has(layer_group(layer)) && !keeps_qkv(layer) && !keeps_input(layer) ? 1 : 0;
    if (left == 0) return "";
    return sentence("attention of ", left, left == 1 ? " layer" : " layers",
                    ": it is recomputed where q, k and v are kept (--activations q,k,v), or the residual stream before "
                    "the layer in f32");
  }

  Subject subject(Index layer) const override {
    const std::string group = layer_group(layer);
    Subject s{{subject_.attention(type_), subject_.mask(layer), {}}, group + "/out", "", group + "/attention"};
    if (keeps_qkv(layer)) {
      s.source.read = [this, group](RowSource::What what, std::span<const Run> runs, const Rows& into) {
        static constexpr const char* names[] = {"/q", "/k", "/v"};
        file_.read_rows(group + names[static_cast<int>(what)], runs, into);
      };
      return s;
    }
    const auto lengths = std::make_shared<Lengths>();
    s.source.read = [this, layer, lengths](RowSource::What what, std::span<const Run> runs, const Rows& into) {
      project(layer, what, runs, into);
      if (what == RowSource::What::q) lengths->q = std::max(lengths->q, longest(into));
      if (what == RowSource::What::k) lengths->k = std::max(lengths->k, longest(into));
    };
    const double off = sums_off(subject_.shape.channels), scale = subject_.shape.softmax_scale;
    s.scores_off = [lengths, off, scale] { return off * scale * lengths->q * lengths->k; };
    s.values_off = off;
    return s;
  }

  Verdict judge_layer(Index layer, const Recomputed& attention) const override {
    Verdict verdict;
    const std::string group = layer_group(layer);
    const bool residual = file_.has(group + "/residual"), mlp = file_.has(group + "/mlp");
    if (!keeps_input(layer) || (!residual && !mlp)) return verdict;
    const TransformerShape& s = subject_.shape;
    const auto rows = static_cast<Index>(attention.rows.size());
    const Array stream(cpu_, DType::f32, rows, 1, s.channels), added(cpu_, DType::f32, rows, 1, s.channels),
        out(cpu_, DType::f32, rows, s.query_heads, s.head_channels);
    read_input(layer, single_runs(attention.rows), stream);
    std::ranges::transform(attention.out, out.elements<float>().begin(),
                           [](double x) { return static_cast<float>(x); });
    transformer_->absorb(layer, out, stream, added);
    const double off = 2 * sums_off(std::max(s.hidden, s.channels));
    const auto compare = [&](const char* name, const Rows& exact) {
      const std::vector<double> numbers = doubles(exact);
      const std::string dataset = group + name;
      verdict.lines.push_back(compare_rows(file_, dataset, attention.rows,
                                           {file_.shape(dataset).dims[0], 1, s.channels}, numbers,
                                           std::max(largest_size(numbers), 1e-30), off));
      verdict.checked.insert(dataset);
    };
    if (residual) compare("/residual", stream);
    if (mlp) compare("/mlp", added);
    return verdict;
  }

  Verdict judge_rest(const std::vector<Index>& rows) const override {
    Verdict verdict;
    const auto ids = subject_.texts->ids();
    const Run all{0, static_cast<Index>(ids.size()), 1};
    std::vector<Index> stored(ids.size());
    file_.read_integer_rows("tokens/ids", {&all, 1}, stored);
    Line line{"tokens/ids", 0, 0, 0};
    for (std::size_t n = 0; n < ids.size(); ++n) line.largest += stored[n] == static_cast<Index>(ids[n]) ? 0 : 1;
    verdict.lines.push_back(line);
    verdict.checked.insert("tokens/ids");
    const std::string last = layer_group(subject_.shape.layers - 1) + "/residual";
    if (!file_.has("predictions/bits") || !transformer_->predicts() || !kept_in_f32(last)) return verdict;
    const TransformerShape& s = subject_.shape;
    const Array stream(cpu_, DType::f32, static_cast<Index>(rows.size()), 1, s.channels);
    file_.read_rows(last, single_runs(rows), stream);
    std::vector<Index> next;
    for (const Index row : rows) next.push_back(subject_.next(row));
    const NextTokens exact = transformer_->read_out(stream, next);
    const auto compare = [&](const char* name, const std::vector<float>& numbers) {
      const std::string dataset = sentence("predictions/", name);
      if (!file_.has(dataset)) return;
      // f32 logits of up to a hundred are off by up to 1e-4.
      verdict.lines.push_back(compare_rows(file_, dataset, rows, {static_cast<Index>(ids.size()), 1, 1},
                                           std::vector<double>(numbers.begin(), numbers.end()), 1, 1e-3));
      verdict.checked.insert(dataset);
    };
    compare("probability", exact.probability);
    compare("bits", exact.bits);
    compare("entropy", exact.entropy);
    return verdict;
  }

 private:
  static ModelChoice choice_of(const InputFile& file, const std::string& folder,
                               const std::vector<std::string>& inputs) {
    return {folder, inputs, file.text("/", "token_kind") == "ids", file.text("/", "mask")};
  }

  bool kept_in_f32(const std::string& name) const {
    return file_.has(name) && file_.shape(name).element == Element::f32;
  }
  bool keeps_qkv(Index layer) const {
    const std::string group = layer_group(layer);
    return file_.has(group + "/q") && file_.has(group + "/k") && file_.has(group + "/v");
  }
  // Of numbers that were rounded when they were kept, or are computed with, only attention itself can be judged sharply.
  bool keeps_input(Index layer) const {
    return type_ == DType::f32 && (layer == 0 || kept_in_f32(layer_group(layer - 1) + "/residual"));
  }

  void read_input(Index layer, std::span<const Run> runs, const Rows& into) const {
    if (layer > 0) return file_.read_rows(layer_group(layer - 1) + "/residual", runs, into);
    std::vector<std::uint32_t> ids;
    for (const Index token : tokens_at(runs)) ids.push_back(subject_.texts->ids()[static_cast<std::size_t>(token)]);
    transformer_->embed(ids, positions_at(runs), into);
  }

  void project(Index layer, RowSource::What what, std::span<const Run> runs, const Rows& into) const {
    const Array stream(cpu_, DType::f32, into.tokens, 1, subject_.shape.channels);
    read_input(layer, runs, stream);
    const Rows none;
    transformer_->project(layer, stream, positions_at(runs), what == RowSource::What::q ? into : none,
                          what == RowSource::What::k ? into : none, what == RowSource::What::v ? into : none);
  }

  static std::vector<Index> tokens_at(std::span<const Run> runs) {
    std::vector<Index> tokens;
    for (const Run& run : runs)
      for (Index i = 0; i < run.count; ++i) tokens.push_back(run.at(i));
    return tokens;
  }
  std::vector<Index> positions_at(std::span<const Run> runs) const {
    std::vector<Index> positions = tokens_at(runs);
    for (Index& token : positions) token = subject_.position(token);
    return positions;
  }

  const InputFile& file_;
  const DType type_;
  ModelSubject subject_;
  mutable std::optional<Transformer> transformer_;  // what it works with is its own affair
  mutable CpuDevice cpu_;
};

}  // namespace

std::unique_ptr<ModelEvidence> open_model_evidence(const InputFile& result, const std::string& folder,
                                                   const std::vector<std::string>& inputs) {
  return std::make_unique<TransformerEvidence>(result, folder, inputs);
}

}  // namespace annulus::app
