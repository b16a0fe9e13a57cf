#include <iostream>
#include <memory>
#include <string>
#include <vector>

namespace shapes {

// Anything with an area.
class Shape {
 public:
  explicit Shape(std::string name) : name_(std::move(name)) {}
  virtual ~Shape() = default;
  virtual double area() const = 0;
  const std::string& name() const { return name_; }

 private:
  std::string name_;
};

class Circle final : public Shape {
 public:
  Circle(double radius) : Shape("circle"), radius_{radius} {}
  double area() const override { return 3.14159 * radius_ * radius_; }

 private:
  double radius_;
};

template <typename T>
T largest(const std::vector<T>& values, T least = T{}) {
  T result = least;
  for (const auto& value : values) {
    if (value > result) {
      result = value;
    }
  }
  return result;
}

}  // namespace shapes

int main(int argc, char** argv) {
  std::vector<std::unique_ptr<shapes::Shape>> all;
  all.push_back(std::make_unique<shapes::Circle>(argc > 1 ? std::stod(argv[1]) : 2.5));
  auto print = [&](const char* title) { std::cout << title << ": " << all.size() << '\n'; };
  print(R"(all "shapes")");
  for (const auto& shape : all) {
    std::cout << shape->name() << " " << shape->area() << std::endl;
  }
  return shapes::largest<int>({1, 2, 0x10}) > 3 ? 0 : 1;
}
