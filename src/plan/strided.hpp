#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "plan/sight.hpp"

namespace annulus {

/// What striped shards see of one another in a mask of many regions, such as packed documents, where every shard meets every region:
/// a tile is looked up, not computed. A run {first, ..., stride} with first < stride that goes on to the end begins in a region at row
/// begin / stride, or one later where first < begin % stride, and ends likewise. So each region is met in at most 16 ways, times the
/// few in which first - first of two runs lies to its band, and documents of about the same length are met alike.
///
///   stride 4, region [6, 13):   first 0: rows 2, 3 (8, 12)   1: 2 (9)   2: 1, 2 (6, 10)   3: 1, 2 (7, 11)
class StridedTiles {
 public:
  /// paces: what tiles take is known, as in Sight; none: pairs and rows only. Empty where a table does not serve: see serves().
  StridedTiles(const Partition& stay, const Partition& travel, const Mask& mask, const Paces* paces = nullptr,
               bool backward = false);

  bool serves() const { return !places_.empty(); }
  /// The same as annulus::look, to the last bit.
  void look(std::span<const Run> stay, std::span<const Run> travel, Sight& into);
  /// Whether two runs that stay, or travel, of as many rows, have the same rows in the same regions.
  bool same_rows_stay(Index first, Index other) const {
    return class_of(stay_edges_, first) == class_of(stay_edges_, other);
  }
  bool same_rows_travel(Index first, Index other) const {
    return class_of(travel_edges_, first) == class_of(travel_edges_, other);
  }

 private:
  using Edge = std::int32_t;  // of a region, modulo the stride
  struct Place {              // of a region
    Edge stay_begin, stay_end, travel_begin, travel_end;
    std::uint32_t kind, band;  // where its ways begin among tiles_; in bands_
    Index travel_row;          // travel_begin's, of a run with first >= travel_begin
  };
  struct Met {
    Index pairs = 0;
    Range rows;  // of the block, from travel_row on
    double forward_seconds = 0, backward_seconds = 0;
  };
  static constexpr int most_gaps = 5;  // a stride apart at most: each bound of a band is passed twice
  static constexpr std::uint32_t ways = 16;
  struct Gaps {  // first - first of two runs: from which on a band is met in another way
    Band band;
    std::vector<Index> from;
  };
  static std::ptrdiff_t class_of(const std::vector<Index>& edges, Index first);
  std::uint32_t band_at(Band band);
  void add_kind(const Region& region, const Gaps& gaps, const Sight& priced);
  Met meet(const Region& region, std::uint32_t way, Index gap, const Sight& priced) const;

  Index stride_ = 0;
  std::vector<Place> places_;  // in the order of the regions
  std::vector<Gaps> bands_;
  std::vector<Met> tiles_;
  std::vector<Index> stay_edges_, travel_edges_;  // of all regions, modulo the stride; sorted
  std::vector<std::uint32_t> gap_class_;          // by band, of the two runs that are looked at
  std::vector<Range> held_;                       // by run and region: what the runs so far saw
};

}  // namespace annulus
