#include "app/plan_subject.hpp"

#include <cmath>
#include <set>
#include <string_view>

#include "annulus/base/error.hpp"
#include "app/tensors.hpp"

namespace annulus::app {
namespace {

constexpr Index most_documents = Index{1} << 20;

// What `attend` reads, where that is a file: its datasets as they are.
PlanSubject subject_in(const std::string& path, const Settings& s, bool backward) {
  const std::set<std::string_view> of_shape{"tokens",   "keys",           "query-heads",    "kv-heads",
                                            "channels", "value-channels", "document-tokens"};
  for (const Setting& setting : s.all()) {  // a printed configuration has the defaults, too
    const std::string& name = setting.option.name;
    const bool wished =
        setting.origin == "command line" || (setting.given() && setting.text != setting.option.fallback);
    require(!wished || !of_shape.contains(name), s.name_of(name),
            " must not be given beside an input: the shape is that of ", path);
  }
  const TensorInput input = open_tensors(path, tensor_choice(s, backward));
  FileBytes files;
  for (const char* name : {"q", "k", "v", "dout", "documents"}) {
    if (name == std::string_view("dout") && !backward) continue;
    if (name == std::string_view("documents") && !names_term(s.text("mask"), "documents")) continue;
    const std::string dataset = input.places.path(name);
    if (!input.file.has(dataset)) continue;
    const bool rows = name != std::string_view("documents");
    const annulus::Shape shape = input.file.shape(dataset, rows ? input.places.axes : RowAxes{});
    files.read.emplace_back(name, shape.elements() * bytes_of(shape.element));
  }
  return {input.shape, input.mask, std::move(files)};
}

// Made up from options.
PlanSubject subject_of(const Settings& s, bool backward, const std::optional<Hardware>& hardware) {
  for (const Setting& setting : s.all())
    require(setting.option.group != tensor_options().front().group || setting.origin != "command line",
            s.name_of(setting.option.name), " is for an input, INPUT.h5: there is none");
  Extent extent{s.count("tokens"), s.has("keys") ? s.count("keys") : s.count("tokens"), {}};
  require(extent.queries <= far / 4 && extent.keys <= far / 4, "--tokens and --keys must be below 2^58");
  const bool documents = ("+" + s.text("mask") + "+").find("+documents+") != std::string::npos;
  require(documents || !s.has("document-tokens"), s.name_of("document-tokens"),
          " needs the mask term documents: the mask is ", s.text("mask"));
  require(!documents || s.has("document-tokens"), s.name_of("mask"),
          ": the term documents needs --document-tokens N, or an input with a dataset documents");
  if (documents) {
    const Index each = s.count("document-tokens", 1);
    require(extent.queries / each < most_documents, s.name_of("document-tokens"), " must not make more than ",
            most_documents, " documents: ", extent.queries, " tokens / ", each, " are more");
    extent.documents = equal_documents(extent.queries, each);
  }
  AttentionShape shape{s.count("query-heads", 1),
                       s.has("kv-heads") ? s.count("kv-heads", 1) : s.count("query-heads", 1),
                       s.count("channels", 1),
                       s.has("value-channels") ? s.count("value-channels", 1) : s.count("channels", 1),
                       s.has("dtype") ? parse_dtype(s.text("dtype"))
                       : hardware     ? hardware->known_type(DType::f32)
                                      : DType::f32,
                       0};
  shape.softmax_scale =
      s.has("softmax-scale") ? s.number("softmax-scale") : 1 / std::sqrt(static_cast<double>(shape.channels));
  const Index row = bytes_of(shape.type) * shape.query_heads, key_row = bytes_of(shape.type) * shape.kv_heads;
  FileBytes files;
  files.read = {{"q", extent.queries * row * shape.channels},
                {"k", extent.keys * key_row * shape.channels},
                {"v", extent.keys * key_row * shape.value_channels}};
  if (backward) files.read.emplace_back("dout", extent.queries * row * shape.value_channels);
  if (documents) files.read.emplace_back("documents", 8 * static_cast<Index>(extent.documents.size()));
  return {shape, Mask::parse(s.text("mask"), extent), std::move(files)};
}

// What `attend` writes.
void add_results(const AttentionShape& s, const Mask& mask, bool backward, FileBytes& files) {
  const Index each = bytes_of(s.type), queries = mask.queries() * s.query_heads, keys = mask.keys() * s.kv_heads;
  files.write = {{"out", queries * s.value_channels * each}, {"lse", queries * 4}};
  if (!backward) return;
  files.write.emplace_back("dq", queries * s.channels * each);
  files.write.emplace_back("dk", keys * s.channels * each);
  files.write.emplace_back("dv", keys * s.value_channels * each);
}

}  // namespace

PlanSubject plan_subject(const Settings& settings, bool backward, const std::optional<Hardware>& hardware) {
  PlanSubject subject = settings.positional().empty() ? subject_of(settings, backward, hardware)
                                                      : subject_in(settings.positional().front(), settings, backward);
  add_results(subject.shape, subject.mask, backward, subject.files);
  return subject;
}

}  // namespace annulus::app
