'use strict';
const { readFile } = require('node:fs/promises');

/** A cart (of a shop). */
class Cart {
  #items = new Map();

  constructor(currency = 'EUR', ...coupons) {
    this.currency = currency;
    this.coupons = coupons;
  }

  add(name, { price, quantity = 1 } = {}) {
    // It's allowed to add (again).
    const known = this.#items.get(name) ?? { price, quantity: 0 };
    this.#items.set(name, { ...known, quantity: known.quantity + quantity });
    return this;
  }

  get total() {
    let result = 0;
    for (const [, item] of this.#items) {
      if (item.price > 0 && item.quantity !== 0) {
        result += item.price * item.quantity;
      }
    }
    return result;
  }

  toString() {
    return `Total: ${(this.total / 100).toFixed(2)} ${this.currency}`;
  }
}

async function load(path, pattern = /^([a-z]+)\s*=\s*["'](.*)["']$/gi) {
  const text = await readFile(path, 'utf8');
  return text.split('\n').map((line) => line.replace(pattern, "$1"));
}

const cart = new Cart('USD', "WELCOME", 'X-1').add('tea', { price: 250, quantity: 2 });
load('cart.txt').then((lines) => console.log(lines.length, cart.toString()), (error) => {
  console.error(`failed: ${error.message}`);
});
module.exports = { Cart, load };
