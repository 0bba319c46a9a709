#include <algorithm>
#include <map>

#include "store/files.hpp"

namespace annulus {
namespace {

class Scales : public StoreTest {
 protected:
  /// "/" before the names of scales, "=" before those of scales with coordinates, ">" before where links lead.
  std::map<std::string, std::string> marks() {
    std::map<std::string, std::string> found;
    for (const auto& entry : InputFile(at("x.h5")).tree()) {
      EXPECT_LE(entry.bare_scale, entry.scale);
      const std::string mark = sentence(entry.bare_scale ? "/"
                                        : entry.scale    ? "="
                                                         : "",
                                        entry.linked.empty() ? "" : ">", entry.linked);
      if (!mark.empty()) found.emplace(entry.path, mark);
    }
    return found;
  }
};

TEST_F(Scales, AreSharedWithinAGroupAndWithGroupsBelow) {
  Draft draft(at("x.h5"));
  draft.dimension("token", 4);
  draft.add({"a/b/x", {4, 2}, Element::f32, {"token", "head"}});
  draft.add({"a/b/y", {2, 4}, Element::u32, {"head", "token"}});
  draft.add({"a/z", {4, 3}, Element::f32, {"token", "head"}});
  draft.seal();
  const std::vector<Index> late(3, 7);
  draft.write_small({"a/late", {3}, Element::i64, {"head"}}, late);
  draft.commit();
  EXPECT_EQ(marks(), (std::map<std::string, std::string>{{"token", "/"}, {"a/b/head", "/"}, {"a/head", "/"}}));
}

TEST_F(Scales, OfOneNameInAGroupHaveOneLength) {
  Draft draft(at("x.h5"));
  draft.add({"x", {4, 2}, Element::f32, {"token", "head"}});
  expect_error(Failure::usage, "the dimension 'head' is 3 long here, but has the length 2 in the same group", [&] {
    draft.add({"y", {4, 3}, Element::f32, {"token", "head"}});
  });
}

TEST_F(Scales, HoldCoordinatesWhenADatasetIsNamedAsItsOnlyDimension) {
  Draft draft(at("x.h5"));
  const std::vector<Index> firsts = {0, 4, 8};
  draft.write_small({"map/block", {3}, Element::i64, {"block"}}, firsts);
  draft.add({"map/mass", {3, 3}, Element::f32, {"block", "block"}});
  draft.link("other/block", "map/block");
  draft.seal();
  draft.commit();
  EXPECT_EQ(marks(), (std::map<std::string, std::string>{{"map/block", "="}, {"other/block", "=>/map/block"}}));
  EXPECT_EQ(InputFile(at("x.h5")).read_integers("other/block"), firsts);
}

TEST_F(Scales, ANameThatADatasetHasIsLookedForInGroupsAbove) {
  Draft draft(at("x.h5"));
  draft.dimension("token", 4);
  draft.add({"guess/token", {4, 2}, Element::u32, {"token", "head"}});
  draft.seal();
  draft.commit();
  EXPECT_EQ(marks(), (std::map<std::string, std::string>{{"token", "/"}, {"guess/head", "/"}}));
}

TEST_F(Scales, MayBeEmptyOrMissing) {
  Draft draft(at("x.h5"));
  const std::vector<std::string> nothing;
  draft.write_small({"passages/text", {0}, Element::text, {"passage"}}, nothing);
  draft.add({"x", {4, 2}, Element::f32, {"token", ""}});
  draft.seal();
  draft.commit();
  EXPECT_EQ(marks(), (std::map<std::string, std::string>{{"passages/passage", "/"}, {"token", "/"}}));
  EXPECT_EQ(InputFile(at("x.h5")).dimension_names("x"), (std::vector<std::string>{"token", ""}));
}

TEST_F(Scales, TakeNoSpaceHoweverLong) {
  Draft draft(at("x.h5"));
  draft.dimension("token", Index{1} << 50);
  draft.seal();
  draft.commit();
  EXPECT_LT(std::filesystem::file_size(at("x.h5")), 65536U);
}

}  // namespace
}  // namespace annulus
