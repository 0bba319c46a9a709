#include "annulus/model/products.hpp"

#include <gmock/gmock.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <deque>
#include <limits>
#include <random>
#include <thread>

#include "annulus/base/error.hpp"
#include "annulus/memory/device.hpp"
#include "annulus/memory/number.hpp"
#include "checkpoint/writer.hpp"

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;

constexpr double inf = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();

// Numbers of a type, as a tensor that owns them.
struct Numbers {
  Numbers(DType type, std::vector<Index> dims, const std::vector<double>& numbers, std::size_t shift = 0)
      : written_(written("w", type, dims, numbers)) {
    memory_.resize(written_.bytes.size() + shift);
    std::memcpy(memory_.data() + shift, written_.bytes.data(), written_.bytes.size());
    tensor = {"w", type, std::move(dims), std::span(memory_).subspan(shift), "here"};
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  double at(Index n) const {
    std::vector<double> aligned(tensor.bytes.size() / 8 + 1);
    std::memcpy(aligned.data(), tensor.bytes.data(), tensor.bytes.size());
    return number(dense_rows(aligned.data(), tensor.type, tensor.elements(), 1, 1), n);
  }
  Tensor tensor;

 private:
  Written written_;
  std::vector<std::byte> memory_;
};

std::vector<double> random_numbers(std::mt19937& random, Index count) {
  std::normal_distribution<double> normal;
  std::vector<double> numbers(static_cast<std::size_t>(count));
  for (double& number : numbers) number = normal(random);
  return numbers;
}

double rounded(double number, DType type) {
  const auto value = static_cast<float>(number);
  return type == DType::bf16 ? static_cast<double>(from_bf16(to_bf16(value))) : static_cast<double>(value);
}

// A matrix in f64, [outputs, inputs], made of pieces as Products has it.
struct Matrix {
  Index outputs = 0, inputs = 0;
  std::vector<double> w, bias;
};
Matrix matrix_of(std::span<const WeightPiece> pieces, DType type) {
  Matrix m;
  for (const WeightPiece& piece : pieces) {
    const Tensor& t = *piece.matrix;
    std::vector<double> aligned(t.bytes.size() / 8 + 1);
    std::memcpy(aligned.data(), t.bytes.data(), t.bytes.size());
    const Rows elements = dense_rows(aligned.data(), t.type, t.elements(), 1, 1);
    m.inputs = t.dims[piece.transposed ? 0 : 1];
    m.outputs += piece.outputs.count();
    for (Index o = piece.outputs.begin; o < piece.outputs.end; ++o) {
      for (Index i = 0; i < m.inputs; ++i)
        m.w.push_back(rounded(number(elements, piece.transposed ? i * t.dims[1] + o : o * t.dims[1] + i), type));
      m.bias.push_back(0);
      if (piece.bias == nullptr) continue;
      std::vector<double> aligned_bias(piece.bias->bytes.size() / 8 + 1);
      std::memcpy(aligned_bias.data(), piece.bias->bytes.data(), piece.bias->bytes.size());
      const Rows bias = dense_rows(aligned_bias.data(), piece.bias->type, piece.bias->elements(), 1, 1);
      m.bias.back() = rounded(number(bias, o), DType::f32);
    }
  }
  return m;
}

// Rows of numbers, `gap` elements apart.
struct Block {
  Block(Index rows, Index columns, Index gap = 0, double value = 0)
      : memory(static_cast<std::size_t>(rows * (columns + gap)) + 1, static_cast<float>(value)) {
    view = dense_rows(memory.data(), DType::f32, rows, 1, columns);
    view.pitch += gap * 4;
  }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  void fill(std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (float& number : memory) number = normal(random);
  }
  std::vector<float> memory;
  Rows view;
};

// Every element of y against f64: n products and a bias, summed in f32 in any order, err by (n + 1) u of the sum of their
// sizes, u = 2^-24; what y was is one more addend.
void expect_product(const Matrix& m, DType type, const Rows& x, const Rows& before, const Rows& y) {
  for (Index row = 0; row < x.tokens; ++row)
    for (Index o = 0; o < m.outputs; ++o) {
      double sum = m.bias[static_cast<std::size_t>(o)], sizes = std::abs(sum);
      if (!before.absent()) sum += number(before, row, 0, o), sizes += std::abs(number(before, row, 0, o));
      for (Index i = 0; i < m.inputs; ++i) {
        const double product = rounded(number(x, row, 0, i), type) * m.w[static_cast<std::size_t>(o * m.inputs + i)];
        sum += product;
        sizes += std::abs(product);
      }
      const double tolerance = static_cast<double>(m.inputs + 2) * 0x1p-24 * sizes;
      ASSERT_NEAR(number(y, row, 0, o), sum, tolerance) << "row " << row << ", output " << o;
    }
}

struct Shape {
  Index rows, inputs, outputs;
};

TEST(Products, AreThoseOfRealNumbersButForRounding) {
  std::mt19937 random(1);
  for (const DType type : {DType::f32, DType::bf16})
    for (const int threads : {1, 2}) {
      Products products(type, threads);
      for (const auto [rows, inputs, outputs] : {Shape{1, 1, 1},
                                                 {3, 5, 7},
                                                 {1000, 96, 257},
                                                 {1, 257, 96},
                                                 {17, 64, 64},
                                                 {0, 3, 2},
                                                 {1025, 7, 65},
                                                 {2, 300, 1}})
        for (const DType source : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
          SCOPED_TRACE(sentence(name_of(type), " of ", name_of(source), ", ", threads, " threads: ", rows, " x ",
                                inputs, " x ", outputs));
          const Numbers w(source, {outputs, inputs}, random_numbers(random, outputs * inputs));
          const WeightPiece piece = whole(w.tensor);
          const Weights weights = products.prepare(piece);
          EXPECT_EQ(weights.inputs(), inputs);
          EXPECT_EQ(weights.outputs(), outputs);
          EXPECT_GE(weights.bytes(), inputs * outputs * bytes_of(type));
          Block x(rows, inputs), y(rows, outputs, 0, nan);
          x.fill(random);
          products.multiply(weights, x.view, y.view);
          expect_product(matrix_of({&piece, 1}, type), type, x.view, {}, y.view);
        }
    }
}

TEST(Products, StackPiecesHoweverTheyAreStored) {
  std::mt19937 random(2);
  constexpr Index inputs = 70;
  const Numbers a(DType::f32, {130, inputs}, random_numbers(random, 130 * inputs));
  const Numbers turned(DType::bf16, {inputs, 90}, random_numbers(random, 90 * inputs));
  const Numbers odd(DType::f16, {33, inputs}, random_numbers(random, 33 * inputs), 1);  // not aligned to its elements
  const Numbers bias(DType::f16, {90}, random_numbers(random, 90), 1);
  const std::vector<WeightPiece> pieces{whole(a.tensor),
                                        {&turned.tensor, {7, 80}, true, &bias.tensor},
                                        {&odd.tensor, {32, 33}},
                                        {&a.tensor, {1, 3}},
                                        {&odd.tensor, {0, 31}}};
  for (const DType type : {DType::f32, DType::bf16}) {
    Products products(type, 2);
    const Weights weights = products.prepare(pieces);
    const Matrix m = matrix_of(pieces, type);
    ASSERT_EQ(weights.outputs(), m.outputs);
    Block x(50, inputs, 3), y(50, m.outputs, 5);
    x.fill(random);
    products.multiply(weights, x.view, y.view);
    expect_product(m, type, x.view, {}, y.view);
  }
}

TEST(Products, AreTheSameFromPanelsOfAHugeMatrix) {
  // 2.6 panels of 16 MiB in f32, turned and not.
  constexpr Index inputs = 4096, outputs = 2600;
  std::mt19937 random(3);
  std::vector<double> numbers(static_cast<std::size_t>(inputs * outputs));
  for (double& number : numbers) number = static_cast<double>(random() % 9) - 4;  // sums are exact
  const Numbers w(DType::bf16, {outputs, inputs}, numbers);
  Products products(DType::f32, 2);
  for (const bool transposed : {false, true}) {
    const Numbers seen(DType::bf16, {w.tensor.dims[transposed ? 1 : 0], w.tensor.dims[transposed ? 0 : 1]}, numbers);
    const WeightPiece piece{&seen.tensor, {0, outputs}, transposed};
    const Weights weights = products.prepare(piece);
    Block x(1, inputs), y(1, outputs);
    for (Index i = 0; i < inputs; ++i) x.view.at<float>(0)[i] = static_cast<float>(i % 5) - 2;
    products.multiply(weights, x.view, y.view);
    for (Index o = 0; o < outputs; ++o) {
      double sum = 0;
      for (Index i = 0; i < inputs; ++i)
        sum += numbers[static_cast<std::size_t>(transposed ? i * outputs + o : o * inputs + i)] *
               (static_cast<double>(i % 5) - 2);
      ASSERT_EQ(y.view.at<float>(0)[o], sum) << o;
    }
  }
}

TEST(Products, AddToWhatIsThere) {
  std::mt19937 random(4);
  const Numbers w(DType::f32, {65, 33}, random_numbers(random, 65 * 33)),
      bias(DType::f32, {65}, random_numbers(random, 65));
  const WeightPiece piece = whole(w.tensor, false, &bias.tensor);
  for (const DType type : {DType::f32, DType::bf16})
    for (const Index gap : {0, 7}) {
      Products products(type, 1);
      const Weights weights = products.prepare(piece);
      Block x(1030, 33), y(1030, 65, gap);
      x.fill(random);
      y.fill(random);
      Block before(1030, 65, gap);
      before.memory = y.memory;
      before.view.data = reinterpret_cast<std::byte*>(before.memory.data());
      products.multiply(weights, x.view, y.view, true);
      expect_product(matrix_of({&piece, 1}, type), type, x.view, before.view, y.view);
      for (Index row = 0; row < 1030; ++row)  // what lies between rows is somebody else's
        for (Index c = 65; c < 65 + gap; ++c) ASSERT_EQ(y.view.at<float>(row)[c], before.view.at<float>(row)[c]);
    }
}

TEST(Products, TakeRowsOfHeadsAndOfAnyType) {
  std::mt19937 random(5);
  const Numbers w(DType::bf16, {12, 24}, random_numbers(random, 12 * 24));
  const WeightPiece piece = whole(w.tensor);
  CpuDevice device;
  for (const DType type : {DType::f32, DType::bf16})
    for (const DType given : {DType::f32, DType::bf16, DType::f16, DType::f64}) {
      Products products(type, 1);
      Block numbers(9, 24);
      numbers.fill(random);
      const Array x(device, given, 9, 4, 6), y(device, DType::f32, 9, 3, 4);
      Rows as_heads = numbers.view;
      as_heads.heads = 4, as_heads.channels = 6;
      convert(as_heads, x);
      products.multiply(products.prepare(piece), x, y);
      Rows flat = x.rows(), flat_y = y.rows();
      flat.heads = 1, flat.channels = 24, flat_y.heads = 1, flat_y.channels = 12;
      expect_product(matrix_of({&piece, 1}, type), type, flat, {}, flat_y);
    }
}

TEST(Products, LetInfinitiesAndNaNThrough) {
  for (const DType type : {DType::f32, DType::bf16}) {
    Products products(type, 1);
    // Shapes that leave room in every block: nothing of it may be counted.
    const Numbers w(DType::f32, {3, 5}, {1, 1, 1, 1, 1, 1, inf, 1, 1, 1, 0, 0, 0, 0, nan});
    const Weights weights = products.prepare(whole(w.tensor));
    Block x(4, 5, 0, 1), y(4, 3);
    x.view.at<float>(1)[0] = static_cast<float>(inf);
    x.view.at<float>(2)[0] = static_cast<float>(-inf);
    x.view.at<float>(3)[2] = static_cast<float>(nan);
    products.multiply(weights, x.view, y.view);
    const auto at = [&](Index row, Index o) { return static_cast<double>(y.view.at<float>(row)[o]); };
    EXPECT_EQ(at(0, 0), 5);
    EXPECT_EQ(at(0, 1), inf);
    EXPECT_TRUE(std::isnan(at(0, 2)));
    EXPECT_EQ(at(1, 0), inf);
    EXPECT_EQ(at(1, 1), inf);
    EXPECT_EQ(at(2, 0), -inf);
    EXPECT_TRUE(std::isnan(at(2, 1)));  // inf - inf
    EXPECT_TRUE(std::isnan(at(3, 0)) && std::isnan(at(3, 1)) && std::isnan(at(3, 2)));
  }
}

TEST(Products, GiveTheSameBitsTwice) {
  std::mt19937 random(6);
  const Numbers w(DType::bf16, {300, 1500}, random_numbers(random, 300 * 1500));
  for (const DType type : {DType::f32, DType::bf16})
    for (const int threads : {1, 2, 3})
      for (const Index rows : {1, 5, 200}) {
        Products first(type, threads), second(type, threads);
        Block x(rows, 1500), y(rows, 300), again(rows, 300), others(rows, 300);
        x.fill(random);
        const Weights weights = first.prepare(whole(w.tensor));
        first.multiply(weights, x.view, y.view);
        first.multiply(weights, x.view, again.view);
        second.multiply(weights, x.view, others.view);  // Weights are nobody's
        EXPECT_EQ(y.memory, again.memory);
        EXPECT_EQ(y.memory, others.memory);
      }
}

TEST(Products, OfSeveralRanksRunAtTheSameTime) {
  std::mt19937 random(7);
  const Numbers w(DType::f32, {257, 129}, random_numbers(random, 257 * 129));
  const WeightPiece piece = whole(w.tensor);
  Block x(100, 129);
  x.fill(random);
  const auto result = [&](DType type, int threads) {
    Products products(type, threads);
    const Weights weights = products.prepare(piece);
    std::vector<float> first;
    for (int n = 0; n < 20; ++n) {
      Block y(100, 257);
      products.multiply(weights, x.view, y.view);
      if (n == 0) first = y.memory;
      EXPECT_EQ(first, y.memory);
    }
    return first;
  };
  std::deque<std::vector<float>> alone, together(4);
  for (int rank = 0; rank < 4; ++rank) alone.push_back(result(rank % 2 == 0 ? DType::f32 : DType::bf16, 1 + rank / 2));
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank)
    ranks.emplace_back([&, rank] {
      omp_set_num_threads(5 + rank);
      together[static_cast<std::size_t>(rank)] = result(rank % 2 == 0 ? DType::f32 : DType::bf16, 1 + rank / 2);
      EXPECT_EQ(omp_get_max_threads(), 5 + rank);
    });
  for (std::thread& rank : ranks) rank.join();
  EXPECT_EQ(alone, together);
}

TEST(Products, SayWhatDoesNotFit) {
  const auto said = [](const auto& work) -> std::string {
    try {
      work();
    } catch (const Error& error) {
      EXPECT_EQ(error.failure(), Failure::usage);
      return error.what();
    }
    return "nothing";
  };
  EXPECT_THAT(said([] { Products(DType::f16, 1).type(); }), HasSubstr("in f32 or bf16, not in f16"));
  EXPECT_THAT(said([] { Products(DType::f32, 0).type(); }), HasSubstr("at least one thread"));
  Products products(DType::f32, 1);
  const Numbers a(DType::f32, {2, 3}, std::vector<double>(6, 1)), b(DType::f32, {2, 2}, std::vector<double>(4, 1)),
      v(DType::f32, {3}, std::vector<double>(3, 1));
  const auto prepared = [&](std::vector<WeightPiece> pieces) {
    return said([&] { products.prepare(pieces).bytes(); });
  };
  EXPECT_THAT(prepared({}), HasSubstr("at least one piece"));
  EXPECT_THAT(prepared({{&v.tensor, {0, 1}}}), HasSubstr("made of matrices"));
  EXPECT_THAT(prepared({{nullptr, {0, 1}}}), HasSubstr("made of matrices"));
  EXPECT_THAT(prepared({whole(a.tensor), whole(b.tensor)}), HasSubstr("as many inputs"));
  for (const Range outputs : {Range{0, 3}, Range{-1, 1}, Range{1, 1}, Range{2, 1}})
    EXPECT_THAT(prepared({{&a.tensor, outputs}}), HasSubstr("outputs that its matrix has"));
  EXPECT_THAT(prepared({whole(a.tensor, false, &v.tensor)}), HasSubstr("a bias must have"));
  const Weights weights = products.prepare(whole(a.tensor));
  Block x(4, 3), y(4, 2), y5(5, 2), wide(4, 3);
  const auto multiplied = [&](const Rows& from, const Rows& into) {
    return said([&] { products.multiply(weights, from, into); });
  };
  EXPECT_EQ(multiplied(x.view, y.view), "nothing");
  EXPECT_THAT(multiplied(x.view, y5.view), HasSubstr("5 rows"));
  EXPECT_THAT(multiplied(x.view, wide.view), HasSubstr("3 inputs and 2 outputs"));
  EXPECT_THAT(multiplied(y.view, y.view), HasSubstr("3 inputs and 2 outputs"));
  Rows halves = y.view;
  halves.type = DType::bf16;
  EXPECT_THAT(multiplied(x.view, halves), HasSubstr("result is f32"));
  EXPECT_THAT(said([&] { Products(DType::bf16, 1).multiply(weights, x.view, y.view); }),
              HasSubstr("prepared for the type"));
}

}  // namespace
}  // namespace annulus::testing
