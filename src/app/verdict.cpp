#include "app/verdict.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"

namespace annulus::app {
namespace {

void require_shape(const InputFile& file, const std::string& name, const TableShape& table) {
  const annulus::Shape shape = file.shape(name);
  const std::vector<Index> whole{table.rows, table.heads, table.channels},
      flat{table.rows, table.heads * table.channels}, plain{table.rows};
  require<Failure::file>(shape.dims == whole || shape.dims == flat || (shape.dims == plain && flat.back() == 1), "dataset ", name, " of ", file.path(), " must be ",
                         text_of({whole, shape.element}), ": it is ", text_of(shape));
}

std::vector<Run> runs_of(const std::vector<Index>& rows) {
  std::vector<Run> runs;
  for (Index row : rows) runs.push_back({row, 1, 1});
  return runs;
}

std::vector<float> stored_rows(const InputFile& file, const std::string& name, const std::vector<Index>& rows,
                               const TableShape& table) {
  require_shape(file, name, table);
  if (file.shape(name).dims.size() == 1) {
    const std::vector<double> all = file.read_numbers(name, table.rows);
    std::vector<float> some;
    for (const Index row : rows) some.push_back(static_cast<float>(all[static_cast<std::size_t>(row)]));
    return some;
  }
  CpuDevice cpu;
  const Array values(cpu, DType::f32, static_cast<Index>(rows.size()), table.heads, table.channels);
  const Rows& view = values;
  if (file.shape(name).dims.size() == 2 && table.channels > 1) {
    file.read_rows(name, runs_of(rows),
                   dense_rows(view.data, DType::f32, view.tokens, 1, table.heads * table.channels));
  } else {
    file.read_rows(name, runs_of(rows), values);
  }
  return {values.elements<float>().begin(), values.elements<float>().end()};
}

double largest_of(std::span<const double> values) {
  double largest = 0;
  for (double x : values)
    if (std::isfinite(x)) largest = std::max(largest, std::abs(x));
  return largest;
}

// Half a unit in the last place of what is stored, relative; and what small numbers of the type are off by at least.
double rounding_of(Element element) {
  return element == Element::bf16 ? 0x1p-8 : element == Element::f16 ? 0x1p-11 : 0x1p-24;
}
double least_rounding_of(Element element) { return element == Element::f16 ? 0x1p-25 : 0; }

// Errors over `unit`; infinities and what is not a number must agree.
template <class Stored>
Line compare(const std::string& what, const std::vector<Stored>& stored, std::span<const double> exact, double unit,
             double allowed) {
  Line line{what, 0, 0, allowed};
  std::vector<double> errors;
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double x = stored[i], y = exact[i];
    const double error = x == y || (std::isnan(x) && std::isnan(y)) ? 0.0 : std::abs(x - y) / unit;
    errors.push_back(std::isfinite(error) ? error : INFINITY);
  }
  if (errors.empty()) return line;
  line.largest = std::ranges::max(errors);
  const auto middle = errors.begin() + static_cast<std::ptrdiff_t>(errors.size() / 2);
  std::ranges::nth_element(errors, middle);
  line.typical = *middle;
  return line;
}

}  // namespace

Line compare_rows(const InputFile& file, const std::string& name, const std::vector<Index>& rows, const TableShape& table,
                  std::span<const double> exact, double unit, double allowed) {
  const auto stored = stored_rows(file, name, rows, table);
  const Element element = file.shape(name).element;
  const double rounding = rounding_of(element) * largest_of(exact) + least_rounding_of(element);
  return compare(name, stored, exact, unit, allowed + rounding / unit);
}

void Verdict::add(Verdict other) {
  lines.insert(lines.end(), other.lines.begin(), other.lines.end());
  need_all.insert(need_all.end(), other.need_all.begin(), other.need_all.end());
  checked.merge(other.checked);
}

// Groups of which nothing is checked by their name alone.
std::vector<std::string> unchecked(const InputFile& file, const Verdict& verdict) {
  std::set<std::string> known = verdict.checked, rest;
  known.insert(verdict.need_all.begin(), verdict.need_all.end());
  for (const auto& entry : file.tree()) {
    if (!entry.dataset || entry.scale || !entry.linked.empty() || known.contains(entry.path)) continue;
    const std::string group = entry.path.substr(0, entry.path.find('/') + 1);
    const auto inside = known.lower_bound(group);
    const bool looked_into = group.empty() || (inside != known.end() && inside->starts_with(group));
    rest.insert(looked_into ? entry.path : group.substr(0, group.size() - 1));
  }
  return {rest.begin(), rest.end()};
}

namespace {

class Judge {
 public:
  Judge(const InputFile& file, const Subject& subject, const RecomputeChoice& choice, const Recomputed& exact)
      : file_(file),
        subject_(subject),
        choice_(choice),
        exact_(exact),
        s_(subject.source.shape),
        bounds_(
            error_bounds(file.attribute("/", "kernel") ? file.text("/", "kernel") : "", s_.type, exact.largest_score)) {
    if (subject.scores_off) {
      const double off = subject.scores_off();
      bounds_.statistics += off;
      bounds_.out += off + subject.values_off;
    }
    keys_.resize(static_cast<std::size_t>(subject.source.mask.keys()));
    std::iota(keys_.begin(), keys_.end(), Index{0});
  }

  Verdict verdict() {
    rows(subject_.out, exact_.out, s_.value_channels, exact_.magnitudes.out, bounds_.out);
    for (const std::string& name : {subject_.lse, subject_.traces + "/lse"})
      rows(name, exact_.lse, 1, std::max(1.0, largest_of(exact_.lse)), bounds_.statistics);
    traces();
    if (subject_.gradients) gradients();
    return std::move(verdict_);
  }

 private:
  // unit: what errors are measured by; 0: by 1.
  void line(const std::string& name, const std::vector<Index>& rows, const TableShape& table, std::span<const double> exact,
            double unit, double allowed) {
    if (!file_.has(name) || !verdict_.checked.insert(name).second) return;
    Line next = compare_rows(file_, name, rows, table, exact, unit == 0 ? 1 : unit, allowed);
    const std::string word = name.substr(name.rfind('/') + 1);  // attend has two datasets lse
    const bool again = std::ranges::find(verdict_.lines, word, &Line::what) != verdict_.lines.end();
    next.what = again ? name : word;
    verdict_.lines.push_back(std::move(next));
  }
  void rows(const std::string& name, std::span<const double> exact, Index channels, double unit, double allowed) {
    line(name, exact_.rows, {subject_.source.mask.queries(), s_.query_heads, channels}, exact, unit, allowed);
  }

  void traces() {
    const std::string group = subject_.traces + "/";
    const auto keys = static_cast<double>(subject_.source.mask.keys()),
               queries = static_cast<double>(subject_.source.mask.queries());
    const double bound = 2 * bounds_.statistics;  // of a probability
    rows(group + "entropy", exact_.entropy, 1, std::max(1.0, std::log(std::max(1.0, keys))), 2 * bound);
    rows(group + "max_probability", exact_.max_probability, 1, 1, bound);
    if (file_.has(group + "sink_mass") && file_.attribute(group + "sink_mass", "sink_tokens"))
      rows(group + "sink_mass", exact_.sink_mass, 1, 1, bound);
    rows(group + "mean_distance", exact_.mean_distance, 1, std::max(1.0, largest_of(exact_.mean_distance)), bound);
    if (choice_.top_k > 0) {
      rows(group + "topk_probability", exact_.top_probability, choice_.top_k, 1, bound);
      // keys of nearly the same probability may change places
      verdict_.checked.insert(group + "topk_index");
      verdict_.lines.push_back(compare("topk_index", exact_.claimed_probability, exact_.top_probability, 1, bound));
    }
    if (!choice_.columns) return need_all({group + "received_mass", group + "block_mass"});
    const double of_sums = bound + 4 * 0x1p-24 * std::sqrt(queries);  // f32 sums over queries: four standard deviations
    line(group + "received_mass", keys_, {subject_.source.mask.keys(), s_.query_heads, 1}, exact_.received,
         std::max(1.0, largest_of(exact_.received)), of_sums);
    if (choice_.block_tokens == 0) return;
    std::vector<Index> heads(static_cast<std::size_t>(s_.query_heads));
    std::iota(heads.begin(), heads.end(), Index{0});
    const auto blocks = [&](Index tokens) { return std::max<Index>(1, ceil_div(tokens, choice_.block_tokens)); };
    line(group + "block_mass", heads,
         {s_.query_heads, blocks(subject_.source.mask.queries()), blocks(subject_.source.mask.keys())},
         exact_.block_mass, 1, of_sums);
  }

  void gradients() {
    const auto bound = [&](std::span<const double> exact, double magnitude) {
      return magnitude > 0 ? bounds_.of_gradient(largest_of(exact), magnitude) / magnitude : 0;
    };
    const Recomputed::Magnitudes& sums = exact_.magnitudes;
    rows("dq", exact_.dq, s_.channels, sums.dq, bound(exact_.dq, sums.dq));
    if (static_cast<Index>(exact_.rows.size()) < subject_.source.mask.queries()) return need_all({"dk", "dv"});
    const Index keys = subject_.source.mask.keys();
    line("dk", keys_, {keys, s_.kv_heads, s_.channels}, exact_.dk, sums.dk, bound(exact_.dk, sums.dk));
    line("dv", keys_, {keys, s_.kv_heads, s_.value_channels}, exact_.dv, sums.dv, bound(exact_.dv, sums.dv));
  }

  void need_all(std::initializer_list<std::string> names) {
    for (const std::string& name : names)
      if (file_.has(name)) verdict_.need_all.push_back(name);
  }

  const InputFile& file_;
  const Subject& subject_;
  const RecomputeChoice& choice_;
  const Recomputed& exact_;
  const AttentionShape& s_;
  ErrorBounds bounds_;
  std::vector<Index> keys_;
  Verdict verdict_;
};

}  // namespace

RecomputeChoice recompute_choice(const InputFile& file, const Subject& subject, std::vector<Index> rows) {
  RecomputeChoice choice{.rows = std::move(rows), .gradients = subject.gradients};
  const std::string group = subject.traces + "/";
  const Index queries = subject.source.mask.queries(), heads = subject.source.shape.query_heads;
  if (const std::string index = group + "topk_index", value = group + "topk_probability"; file.has(value)) {
    const auto dims = file.shape(value).dims;
    choice.top_k = dims.size() == 3 ? dims[2] : 1;
    require_shape(file, value, {queries, heads, choice.top_k});
    require_shape(file, index, {queries, heads, choice.top_k});
    choice.claims.resize(choice.rows.size() * static_cast<std::size_t>(heads * choice.top_k));
    file.read_integer_rows(index, runs_of(choice.rows), choice.claims);
  }
  if (file.has(group + "sink_mass") && file.attribute(group + "sink_mass", "sink_tokens"))
    choice.sink_tokens = static_cast<Index>(file.number(group + "sink_mass", "sink_tokens"));
  if (static_cast<Index>(choice.rows.size()) < queries) return choice;
  choice.columns = file.has(group + "received_mass") || file.has(group + "block_mass");
  if (!file.has(group + "block_mass")) return choice;
  choice.block_tokens = static_cast<Index>(file.number(group + "block_mass", "block_tokens"));
  require<Failure::file>(choice.block_tokens >= 1, "attribute block_tokens of ", group, "block_mass of ", file.path(),
                         " must be at least 1: it is ", choice.block_tokens);
  return choice;
}

Verdict judge(const InputFile& file, const Subject& subject, const RecomputeChoice& choice, const Recomputed& exact) {
  return Judge(file, subject, choice, exact).verdict();
}

}  // namespace annulus::app
