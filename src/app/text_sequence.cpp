#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "annulus/base/error.hpp"
#include "annulus/geometry/numbers.hpp"
#include "annulus/input/text.hpp"
#include "annulus/model/induction.hpp"
#include "annulus/model/passages.hpp"
#include "annulus/model/prediction.hpp"
#include "annulus/transport/collectives.hpp"
#include "app/job.hpp"
#include "app/sequence.hpp"

namespace annulus::app {
namespace {

// Of four letters, 16 in a row occur twice by chance in a few ten thousand; 32 hardly in any genome.
constexpr Index shortest_words = 12, shortest_bases = 32;
constexpr Index most_vocabulary = Index{1} << 20;  // spelled out in the result up to here

// A byte alone may be no text: "\x0a".
std::string legible(const std::string& spelling) {
  const auto byte = static_cast<unsigned char>(spelling.empty() ? ' ' : spelling.front());
  if (spelling.size() != 1 || (byte >= ' ' && byte < 127)) return spelling;
  std::array<char, 8> text{};
  std::snprintf(text.data(), text.size(), "\\x%02x", static_cast<unsigned>(byte));
  return text.data();
}

class TextSequence final : public Sequence {
 public:
  explicit TextSequence(const SequenceChoice& choice)
      : choice_(choice),
        corpus_(choice.files,
                choice.tokens == "auto" ? usual_token_kind(choice.files) : parse_token_kind(choice.tokens)),
        model_(induction_model(choice.contexts.empty() ? usual_contexts(corpus_.kind()) : choice.contexts)),
        summary_(model_.heads()) {
    model_.documents_apart = choice.documents_apart;
    if (choice_.passage_tokens == 0)
      choice_.passage_tokens = corpus_.kind() == TokenKind::bases ? shortest_bases : shortest_words;
  }

  std::string model() const override { return "induction"; }
  std::string token_kind() const override { return std::string(name_of(corpus_.kind())); }
  AttentionShape shape() const override {
    return {model_.heads(), model_.heads(), model_.channels, model_.value_channels, choice_.type, model_.softmax_scale};
  }
  Index tokens() const override { return corpus_.tokens(); }
  std::vector<Index> documents() const override { return {corpus_.offsets().begin(), corpus_.offsets().end()}; }
  // What follows is read from earlier places: who saw the next token would copy it, and find every passage in itself.
  Mask mask(const std::string& terms) const override {
    return mask_looking_back(terms, {tokens(), tokens(), documents()});
  }
  std::vector<std::string> files() const override { return corpus_.files(); }
  void prepare(Transport&) override {}
  void embed(std::span<const Run> runs, const Rows& q, const Rows& k, const Rows& v) override {
    annulus::embed(model_, corpus_, runs, q, k, v);
  }

  void declare(Draft& draft, const TraceChoice& traces) const override {
    const auto add = [&](const char* name, Element element, const char* units, const char* what) {
      draft.add({name, {tokens()}, element, {"token"}, units, what});
    };
    draft.attribute("/", "contexts", model_.context);
    add("tokens/ids", Element::u32, "1", "token, numbered by first appearance; spelled out in tokens/vocabulary");
    add("tokens/byte_begin", Element::u64, "byte", "first byte of the token in its document's file, unpacked");
    add("tokens/byte_end", Element::u64, "byte", "byte behind the token");
    add("tokens/document", Element::u32, "1", "document of the token, as in documents/path");
    share_coordinates(draft, "tokens", coordinates());
    if (!traces.edges) return;
    const std::vector<Index> dims{tokens(), model_.heads()};
    const std::vector<std::string> names{"token", "head"};
    draft.add({"predictions/ids", dims, Element::u32, names, "1", "the token most likely to follow, by each head"});
    draft.add({"predictions/probability", dims, Element::f32, names, "1", "its probability"});
    draft.add({"predictions/bits", dims, Element::f32, names, "bit",
               "cost of the token that does follow; NaN where none does"});
    share_coordinates(draft, "predictions", coordinates(), "context");
  }
  std::vector<std::string> coordinates() const override { return {"document", "byte_begin"}; }

  void read_out(const Job& job, Rank rank, const Traces& traces, const Rows& lse) override {
    edges_ = !traces.top_score().absent();
    if (!edges_) return;
    const Index heads = model_.heads(), k = traces.top_k();
    const Index sharpest = heads - 1;  // the longest context finds passages
    Index row = 0;
    for (const Run& run : job.schedule.queries.runs(rank))
      for (Index i = 0; i < run.count; ++i, ++row) {
        const Index query = run.at(i);
        for (Index h = 0; h < heads; ++h) {
          const auto at = static_cast<std::size_t>((row * heads + h) * k);
          const TopKeys top{traces.top_index().subspan(at, static_cast<std::size_t>(k)),
                            {traces.top_score().at<const float>(row, h), static_cast<std::size_t>(k)},
                            *lse.at<const float>(row, h)};
          const Prediction p = predict(model_, corpus_, query, top);
          summary_.add(h, p);
          token_.push_back(p.token);
          probability_.push_back(static_cast<float>(p.probability));
          bits_.push_back(p.has_truth ? static_cast<float>(p.bits) : NAN);
          if (h == sharpest) append_exact_links(model_, corpus_, h, query, top, choice_.type, links_);
        }
        summary_.add(summary_.unigram(), predict_unigram(corpus_, query));
      }
  }

  void write(RowWriter& writer, std::span<const Run> runs) const override {
    std::vector<Index> ids, begins, ends, documents;
    for (const Run& run : runs)
      for (Index i = 0; i < run.count; ++i) {
        const Index token = run.at(i);
        ids.push_back(corpus_.id(token));
        begins.push_back(corpus_.byte_begin(token));
        ends.push_back(corpus_.byte_end(token));
        documents.push_back(corpus_.document(token));
      }
    writer.write_integer_rows("tokens/ids", runs, ids, 1);
    writer.write_integer_rows("tokens/byte_begin", runs, begins, 1);
    writer.write_integer_rows("tokens/byte_end", runs, ends, 1);
    writer.write_integer_rows("tokens/document", runs, documents, 1);
    if (!edges_) return;
    const Index heads = model_.heads(), rows = static_cast<Index>(ids.size());
    const auto floats = [&](const std::vector<float>& values) {
      return dense_rows(const_cast<float*>(values.data()), DType::f32, rows, heads, 1);  // only read
    };
    writer.write_integer_rows("predictions/ids", runs, token_, heads);
    writer.write_rows("predictions/probability", runs, floats(probability_));
    writer.write_rows("predictions/bits", runs, floats(bits_));
  }

  void collect(Transport& transport) override {
    all_sum(transport, summary_.sums);
    const auto all = gather(transport, 0, std::as_bytes(std::span(links_)));
    if (transport.rank() != 0 || !edges_) return;
    std::vector<Link> links;
    for (const auto& bytes : all) {
      const std::size_t before = links.size();
      links.resize(before + bytes.size() / sizeof(Link));
      if (!bytes.empty()) std::memcpy(links.data() + before, bytes.data(), bytes.size());
    }
    passages_ = merge_links(std::move(links), {0, 0, choice_.passage_tokens, corpus_.offsets()});
    // N is a base that is not known, and of a run of one base there is no telling where in another one it belongs.
    if (corpus_.kind() == TokenKind::bases)
      std::erase_if(passages_, [this](const Passage& p) { return is_monotone(corpus_, p.second); });
  }

  void write_small(Draft& draft) const override {
    std::vector<std::string> paths, names;
    for (Index d = 0; d < corpus_.documents(); ++d) {
      paths.push_back(corpus_.path(d));
      if (corpus_.kind() == TokenKind::bases) names.push_back(corpus_.name(d));
    }
    draft.write_small(
        {"documents/path", {corpus_.documents()}, Element::text, {"document"}, "", "file of the document"}, paths);
    if (corpus_.kind() == TokenKind::bases)
      draft.write_small({"documents/name",
                         {corpus_.documents()},
                         Element::text,
                         {"document"},
                         "",
                         "first word of the record's header"},
                        names);
    draft.write_small({"documents/offset",
                       {corpus_.documents() + 1},
                       Element::i64,
                       {"boundary"},
                       "token",
                       "first token of each document, and the end"},
                      corpus_.offsets());
    if (corpus_.vocabulary() <= most_vocabulary) {
      std::vector<std::string> words;
      for (Index id = 0; id < corpus_.vocabulary(); ++id)
        words.push_back(legible(corpus_.spelling(static_cast<std::uint32_t>(id))));
      draft.write_small(
          {"tokens/vocabulary", {corpus_.vocabulary()}, Element::text, {"id"}, "", "spelling of each token id; bytes that are no letters as \\xNN"},
          words);
    }
    if (!edges_) return;
    std::vector<double> accuracy, bits;
    for (Index column = 0; column <= summary_.unigram(); ++column) {
      accuracy.push_back(summary_.accuracy(column));
      bits.push_back(summary_.bits(column));
    }
    const Index columns = static_cast<Index>(bits.size());
    draft.write_small(
        {"predictions/context", {model_.heads()}, Element::i64, {"head"}, "token", "tokens of context of each head"},
        model_.context);
    draft.write_small({"predictions/accuracy",
                       {columns},
                       Element::f64,
                       {"head_then_unigram"},
                       "1",
                       "share of tokens predicted right"},
                      accuracy);
    draft.write_small(
        {"predictions/bits_per_token", {columns}, Element::f64, {"head_then_unigram"}, "bit", "mean cost of a token"},
        bits);
    PassageTable table;
    for (const Passage& p : passages_) {
      for (std::size_t c = 0; const Index value : {p.first.begin, p.first.end, p.second.begin, p.second.end, p.links})
        table.columns[c++].push_back(value);
      table.score.push_back(p.mean_score);
      table.text.push_back(describe(p, corpus_));
    }
    write_passages(draft, table,
                   corpus_.kind() == TokenKind::bases ? "stretches of sequence that occur twice, base for base"
                                                      : "stretches of text that occur twice, word for word");
  }

  void print() const override {
    std::printf("  input     %s token%s (%s) in %s document%s, %s different\n", grouped(tokens()).c_str(),
                tokens() == 1 ? "" : "s", std::string(name_of(corpus_.kind())).c_str(),
                grouped(corpus_.documents()).c_str(), corpus_.documents() == 1 ? "" : "s",
                grouped(corpus_.vocabulary()).c_str());
    if (!edges_) return;
    std::printf(
        "\n  what follows, by the earlier places with the same context\n    head   context   right      bits per "
        "token\n");
    for (Index h = 0; h < summary_.heads(); ++h)
      std::printf("    %4lld   %7lld   %5.1f %%   %8.2f\n", static_cast<long long>(h),
                  static_cast<long long>(model_.context[static_cast<std::size_t>(h)]), 100 * summary_.accuracy(h),
                  summary_.bits(h));
    std::printf("    unigram          %5.1f %%   %8.2f\n", 100 * summary_.accuracy(summary_.unigram()),
                summary_.bits(summary_.unigram()));
    constexpr std::size_t shown = 12;
    std::printf("\n  passages that occur twice, longest first: %s of at least %lld tokens\n",
                grouped(static_cast<Index>(passages_.size())).c_str(), static_cast<long long>(choice_.passage_tokens));
    for (std::size_t i = 0; i < std::min(shown, passages_.size()); ++i)
      std::printf("    %s\n", describe(passages_[i], corpus_).c_str());
    if (passages_.size() > shown)
      std::printf("    ... %s more in /passages\n", grouped(static_cast<Index>(passages_.size() - shown)).c_str());
  }

 private:
  SequenceChoice choice_;
  Corpus corpus_;
  InductionModel model_;
  PredictionSummary summary_;
  bool edges_ = false;
  std::vector<Index> token_;  // [own row, head]
  std::vector<float> probability_, bits_;
  std::vector<Link> links_;
  std::vector<Passage> passages_;  // on the lead
};

}  // namespace

std::unique_ptr<Sequence> make_text_sequence(const SequenceChoice& choice) {
  return std::make_unique<TextSequence>(choice);
}

}  // namespace annulus::app
