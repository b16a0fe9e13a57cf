# frozen_string_literal: true

require 'json'

module Shop
  # A report (of orders).
  class Report
    attr_reader :orders, :title

    RATES = { 'books' => 0.07, food: 0.05 }.freeze

    def initialize(orders, title: "Report")
      @orders = orders
      @title = title
    end

    def total
      orders.sum { |order| order[:price] * order.fetch(:quantity, 1) }
    end

    def each_line
      return enum_for(:each_line) unless block_given?

      orders.each_with_index do |order, index|
        if order[:price] > 100 && !order[:name].empty?
          yield "#{index + 1}. #{order[:name].upcase}"
        else
          yield format('%d: %s', index, order[:name])
        end
      end
    end

    def to_s
      <<~TEXT
        #{title}
        Total: #{total}
      TEXT
    end

    def valid?
      orders.all? { |order| order[:name] =~ /\A[a-z]+\z/i }
    rescue NoMethodError => e
      warn "it isn't valid: #{e.message}"
      false
    end
  end
end

puts Shop::Report.new([{ name: 'tea', price: 250 }]).each_line.to_a.join("\n")
